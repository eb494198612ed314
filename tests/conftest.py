"""The shared folder and the golden numbers in it."""
import importlib.util
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


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
