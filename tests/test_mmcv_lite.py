"""The stand-in for mmcv's compiled ops, in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from radocc_plugin import mmcv_lite

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def run(tmp_path):
    """Runs code beside a package mmcv whose ops are, or are not, there."""

    def run(code, *, compiled):
        package = tmp_path / 'mmcv'
        package.mkdir()
        (package / '__init__.py').touch()
        if compiled:
            (package / '_ext.py').write_text('nms = "compiled"')
        return subprocess.run(
            [
                sys.executable,
                '-c',
                f'import sys; sys.path[:0] = {[str(tmp_path), str(ROOT)]}\n'
                f'import radocc_plugin, mmcv\n{code}',
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_an_op_that_is_not_compiled_says_how_to_get_it(run):
    result = run('from mmcv._ext import nms; nms(1, threshold=2)', compiled=False)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: the op 'nms' of mmcv is not")
    assert mmcv_lite.MEND in last


def test_compiled_ops_come_first(run):
    result = run('from mmcv import _ext; print(_ext.nms)', compiled=True)
    assert result.stdout.strip() == 'compiled', result.stderr


def test_other_names_are_as_missing_as_before(run):
    result = run('import mmcv._other', compiled=False)
    assert 'ModuleNotFoundError' in result.stderr


def test_it_stands_in_once():
    mmcv_lite.stand_in()
    finders = [f for f in sys.meta_path if type(f) is mmcv_lite._Finder]
    assert len(finders) == 1


def test_mmdet_imports_with_the_mmcv_that_is_here():
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', 'import radocc_plugin, mmcv.ops, mmdet.models'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
