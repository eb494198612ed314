"""Where the golden numbers and the lists of published keys lie."""

import importlib.util
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def shared_folder() -> Path:
    """The folder beside the repository with real data; it may be absent."""
    return Path(os.environ.get('RADOCC_SHARED', ROOT.parent / 'shared')).resolve()


def golden_folder() -> Path:
    """The shared cases, else the copies in the repository."""
    folder = shared_folder() / 'data/golden'
    return folder if folder.is_dir() else ROOT / 'tests/data/golden'


def key_list(name: str) -> Path:
    """The file with keys and shapes of a published checkpoint."""
    path = shared_folder() / f'facts/checkpoint_keys/{name}.txt'
    return path if path.is_file() else ROOT / f'tests/data/checkpoint_keys/{name}.txt'


def load_module():
    """The helper of the golden cases, with ``case(name)`` added."""
    folder = golden_folder()
    spec = importlib.util.spec_from_file_location('golden', folder / 'golden.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.case = lambda name: module.load_case(str(folder / f'{name}.json'))
    return module
