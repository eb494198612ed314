"""Who imports whom, read from the source: arrows point down only."""

import ast
import sys
from pathlib import Path

import pytest

from radocc_plugin import doctor

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'radocc_plugin'
# A room may import those after it, never those before.
FLOORS = ('models', 'distillation', 'losses', 'rendering', 'geometry')
SOURCES = sorted(PACKAGE.rglob('*.py'))


def imported(path):
    """Modules that a file imports, those inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
    return names


def rooms_imported(room):
    """Rooms of the package that the files of a room import."""
    found = {}
    for path in SOURCES:
        if path.relative_to(PACKAGE).parts[0].split('.')[0] != room:
            continue
        for name in imported(path):
            parts = name.split('.')
            if parts[0] == 'radocc_plugin' and len(parts) > 1:
                found.setdefault(parts[1], path.relative_to(ROOT))
    return found


@pytest.mark.parametrize('room', FLOORS[1:])
def test_no_floor_imports_one_above(room):
    above = FLOORS[: FLOORS.index(room)]
    wrong = {name: str(path) for name, path in rooms_imported(room).items() if name in above}
    assert not wrong


@pytest.mark.parametrize(
    'room', ['evaluation', 'structures', 'segments', 'visualization', 'datasets', 'engine']
)
def test_models_are_imported_by_nothing_below(room):
    assert 'models' not in rooms_imported(room)


def test_what_reads_real_data_imports_no_synthetic_world():
    assert 'synthetic' not in rooms_imported('datasets')
    assert 'synthetic' not in rooms_imported('evaluation')


def test_datasets_read_segments_and_do_not_make_them():
    assert 'segments' not in rooms_imported('datasets')


def test_no_two_modules_of_different_things_have_one_name():
    """Each family has its detector; formulas and pictures have names of
    their own."""
    shared = {'__init__', 'base', 'detector', 'occ_head', 'teacher', 'history', 'bev_encoder'}
    shared |= {'sparse_encoder', 'images', 'lidar', 'frames', 'voxels', 'label_space'}
    shared |= {'benchmarks', 'attention'}
    names = [path.stem for path in SOURCES]
    assert {name for name in names if names.count(name) > 1} <= shared


def test_nothing_imports_the_commands():
    others = {path.relative_to(PACKAGE).parts[0].split('.')[0] for path in SOURCES} - {'commands'}
    assert not [room for room in others if 'commands' in rooms_imported(room)]


def test_nothing_imports_projects():
    """That name belongs to every OpenMMLab plugin."""
    files = SOURCES + [
        path
        for folder in ('tools', 'tests', 'projects', 'configs')
        for path in (ROOT / folder).rglob('*.py')
    ]
    wrong = [
        str(path.relative_to(ROOT))
        for path in files
        if any(name.split('.')[0] == 'projects' for name in imported(path))
        or "imports=['projects" in path.read_text()
        and 'test' not in path.name
    ]
    assert not wrong


# Modules of distributions that have another name.
MODULES = dict(pillow='PIL', pyyaml='yaml')


@pytest.mark.parametrize(
    'room', ['rendering', 'losses', 'distillation', 'evaluation', 'geometry', 'structures']
)
def test_core_rooms_import_what_the_core_declares(room):
    declared = [r.package for r in doctor.requirements() if not r.extra]
    known = {'radocc_plugin', *sys.stdlib_module_names, *(MODULES.get(p, p) for p in declared)}
    for path in SOURCES:
        if path.relative_to(PACKAGE).parts[0] != room:
            continue
        others = {name.split('.')[0] for name in imported(path)} - known
        # One backend of several, imported when it is asked for.
        assert others <= ({'triton'} if path.name == 'triton_kernels.py' else set()), path
