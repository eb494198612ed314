"""The GPU check, tried on the CPU."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def check(*arguments):
    return subprocess.run(
        ['bash', str(ROOT / 'tools/gpu_check.sh'), *map(str, arguments)],
        env=dict(os.environ, PYTHON=sys.executable, CUDA_VISIBLE_DEVICES=''),
        capture_output=True,
        text=True,
    )


def test_wrong_arguments_and_a_missing_gpu_are_named():
    for arguments, message in ((('speed',), 'got speed'), ((), 'torch sees no GPU')):
        run = check(*arguments)
        assert run.returncode == 2 and message in run.stderr
        assert 'Traceback' not in run.stderr


def test_the_students_that_it_measures_are_there():
    names = re.findall(r'radocc_\w[\w.-]+', (ROOT / 'tools/gpu_check.sh').read_text())
    assert len(names) == 6
    for name in names:
        assert (ROOT / f'configs/radocc/{name}.py').is_file(), name


def test_a_dry_run_makes_the_table_and_goes_on_where_it_stopped(tmp_path):
    arguments = ('--device', 'cpu', '--dry-run', '--out', tmp_path, 'tests')
    run = check(*arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((tmp_path / 'result.json').read_text())
    assert 'skipped' in result['tests'] and result['students'] == []
    (tmp_path / 'rendering.took').write_text('1')
    (tmp_path / 'rendering.json').write_text('[]')
    again = check(*arguments, 'rendering')
    assert 'tests: done before' in again.stdout
    assert 'rendering: done before' in again.stdout


@pytest.mark.slow
def test_a_dry_run_of_everything(tmp_path):
    pytest.importorskip('mmdet3d')
    run = check('--device', 'cpu', '--dry-run', '--out', tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((tmp_path / 'result.json').read_text())
    rows = result['rendering'][0]['rows']
    assert rows['author style (287 samples)']['step']['ms'] > 0
    assert all(row['depth_error'] < 0.05 for row in rows.values())
    parts = {model['part'] for model in result['students']}
    assert parts == {'student', 'all', 'cached teacher'}
    assert '| tests marked gpu |' in run.stdout
