"""The whole chain, as a user runs it, on the smallest world."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from radocc_plugin.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
# One worker, so that the chain runs once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group('quickstart')]


def quickstart(folder, *arguments):
    """Two training iterations of teacher, baseline and RadOcc student."""
    return subprocess.run(
        [
            sys.executable,
            'tools/reproduce_table.py',
            'quickstart',
            '--work-dir',
            folder / 'work',
            '--data-root',
            folder / 'data',
            '--scenes',
            '1',
            '1',
            '--keyframes',
            '2',
            '--steps',
            '2',
            '2',
            '--label-every',
            '2',
            *map(str, arguments),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp('quickstart')
    result = quickstart(folder)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr
    return folder, result.stdout


def test_writes_table_records_and_pictures(finished):
    folder, screen = finished
    work = folder / 'work'
    records = {
        path.stem: json.loads(path.read_text()) for path in (work / 'records').glob('*.json')
    }
    assert {r['role'] for r in records.values()} == {'teacher', 'baseline', 'radocc'}
    for record in records.values():
        assert record['mask'] == 'camera' and record['seed'] == 0
        assert record['training']['iterations'] == 2
        assert record['data']['num_samples'] == 2
        assert 0 <= record['metrics']['mIoU'] <= 100
    table = (work / 'table.md').read_text()
    for word in ('RadOcc', 'camera', 'seed', 'driv'):
        assert word in table
    assert (work / 'table.html').stat().st_size > 1000
    assert len(list((work / 'pictures').glob('*.png'))) == 4
    assert 'Where the time went' in screen and 'mIoU' in screen


def test_distilled_checkpoint_is_the_plain_students(finished):
    work = finished[0] / 'work'
    states = [
        torch.load(work / role / 'iter_2.pth', weights_only=False)
        for role in ('baseline', 'radocc')
    ]
    assert states[0]['state_dict'].keys() == states[1]['state_dict'].keys()
    config = Config.fromfile(
        ROOT / 'projects/BEVDetOcc/configs/bevdet-occ_tiny-near_1xb1-1600i_synthetic.py'
    )
    MODELS.build(config.model).load_state_dict(states[1]['state_dict'])


def test_a_second_run_repeats_nothing(finished):
    folder = finished[0]
    before = (folder / 'work' / 'baseline' / 'iter_2.pth').stat().st_mtime
    result = quickstart(folder)
    assert result.returncode == 0
    assert result.stdout.count(': done (') == 10
    after = (folder / 'work' / 'baseline' / 'iter_2.pth').stat().st_mtime
    assert before == after


def test_a_failing_step_says_so(tmp_path):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'synthetic_settings.json').write_text('{"seed": 5}')
    result = quickstart(tmp_path)
    assert result.returncode == 1
    assert 'failed' in result.stdout
    assert 'synthetic_settings.json' in result.stdout + result.stderr
