"""Fixtures for every test: the shared folder and MMEngine's globals."""
import os
from pathlib import Path

import pytest
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope

ROOT = Path(__file__).resolve().parents[1]


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


@pytest.fixture(scope='session')
def shared() -> Path:
    """The folder with the real keyframe and the golden numbers."""
    folder = Path(os.environ.get('RADOCC_SHARED', ROOT.parent / 'shared'))
    if not folder.is_dir():
        pytest.skip(f'{folder} is absent; set RADOCC_SHARED')
    return folder
