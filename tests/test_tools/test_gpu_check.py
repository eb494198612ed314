"""The GPU check, tried on the CPU."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def check(*arguments, **environment):
    return subprocess.run(
        ['bash', str(ROOT / 'tools/gpu_check.sh'), *map(str, arguments)],
        env=dict(dict(os.environ, PYTHON=sys.executable), CUDA_VISIBLE_DEVICES='', **environment),
        capture_output=True,
        text=True,
    )


def test_wrong_arguments_and_a_missing_gpu_are_named():
    for arguments, message in ((('speed',), 'got speed'), ((), 'torch sees no GPU')):
        run = check(*arguments)
        assert run.returncode == 2 and message in run.stderr
        assert 'Traceback' not in run.stderr


STAND_IN = """#!/usr/bin/env bash
case "$*" in
  *'-m pytest'*) echo '1 failed in 2 s'; exit 1 ;;
  *'benchmark.py rendering'*) echo '[]' > "${@: -1}" ;;
  *benchmark.py*) echo 'out of memory' >&2; exit 1 ;;
  *) exec REAL "$@" ;;
esac
"""


def test_a_step_that_fails_stops_no_other_and_time_ends_all(tmp_path):
    python, out = tmp_path / 'python', tmp_path / 'out'
    python.write_text(STAND_IN.replace('REAL', sys.executable))
    python.chmod(0o755)
    arguments = ('--device', 'cpu', '--out', out, 'tests', 'rendering', 'students')
    late = check(*arguments, PYTHON=str(python), SECONDS='595')
    assert late.stdout.count('no time left, run the same command again') == 7
    run = check(*arguments, PYTHON=str(python))
    assert run.returncode == 1
    assert run.stdout.count('failed or was stopped after') == 6
    result = json.loads((out / 'result.json').read_text())
    assert result['tests'] == '1 failed in 2 s' and result['rendering'] == []
    assert list(result['seconds']) == ['rendering']
    assert '| tests marked gpu | 1 failed in 2 s |' in (out / 'table.md').read_text()
    assert 'got soon' in check('--device', 'cpu', '--minutes', 'soon').stderr


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
