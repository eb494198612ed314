"""Fixtures of every test: MMEngine's globals, threads, the shared folder."""
import importlib.util
import os
from pathlib import Path

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope

ROOT = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def restore_mmengine_globals():
    """Undoes the default scope and message hub that a Runner leaves behind."""
    scopes = dict(DefaultScope._instance_dict)
    hubs = dict(MessageHub._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(scopes)
    MessageHub._instance_dict.clear()
    MessageHub._instance_dict.update(hubs)


@pytest.fixture(scope='session', autouse=True)
def one_thread():
    """Keeps parallel test workers from waiting busily for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='session')
def shared() -> Path:
    """The folder with the real keyframe and the golden numbers."""
    folder = Path(
        os.environ.get('RADOCC_SHARED', ROOT.parent / 'shared')).resolve()
    if not folder.is_dir():
        pytest.skip(f'{folder} is absent; set RADOCC_SHARED')
    return folder


@pytest.fixture(scope='session')
def golden(shared):
    """The helper module of the golden numbers, with ``case(name)`` added."""
    folder = shared / 'data' / 'golden'
    if not folder.is_dir():
        pytest.skip(f'{folder} is absent')
    spec = importlib.util.spec_from_file_location('golden',
                                                  folder / 'golden.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.case = lambda name: module.load_case(str(folder / f'{name}.json'))
    return module
