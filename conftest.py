"""Fixtures of every test: MMEngine's globals, threads, the shared folder."""

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope

import radocc_plugin  # noqa: F401, mmdet and mmdet3d beside mmcv-lite
from tests.support.golden import load_module, shared_folder


def pytest_collection_modifyitems(items):
    """Tests marked ``gpu`` rest where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            # keywords also hold the names of folders
            if item.get_closest_marker('gpu'):
                item.add_marker(pytest.mark.skip(reason='needs a GPU'))


@contextmanager
def mmengine_globals_restored():
    scopes = dict(DefaultScope._instance_dict)
    hubs = dict(MessageHub._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(scopes)
    MessageHub._instance_dict.clear()
    MessageHub._instance_dict.update(hubs)


@pytest.fixture(autouse=True)
def restore_mmengine_globals():
    """Undoes the default scope and message hub that a Runner leaves behind."""
    with mmengine_globals_restored():
        yield


@pytest.fixture(scope='module', autouse=True)
def restore_mmengine_globals_of_module():
    """The same of a module's own fixtures, which run before its tests."""
    with mmengine_globals_restored():
        yield


@pytest.fixture(scope='session', autouse=True)
def one_thread():
    """Keeps parallel test workers from waiting busily for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='session')
def shared() -> Path:
    """The folder with real data."""
    folder = shared_folder()
    if not folder.is_dir():
        pytest.skip(f'{folder} is absent; set RADOCC_SHARED')
    return folder


@pytest.fixture(scope='session')
def golden():
    """The helper module of the golden numbers, with ``case(name)`` added."""
    return load_module()
