"""The shared folder."""
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='session')
def shared() -> Path:
    """The folder with the real keyframe and the golden numbers."""
    folder = Path(os.environ.get('RADOCC_SHARED', ROOT.parent / 'shared'))
    if not folder.is_dir():
        pytest.skip(f'{folder} is absent; set RADOCC_SHARED')
    return folder
