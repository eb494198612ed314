"""The real nuScenes keyframe goes through every stage."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_real_keyframe_goes_through_every_stage(shared, tmp_path):
    if not (shared / 'data' / 'nuscenes_frame').is_dir():
        pytest.skip(f'{shared} has no data/nuscenes_frame')
    result = subprocess.run(
        [
            sys.executable,
            'tools/reproduce_table.py',
            'quickstart',
            '--only',
            'keyframe',
            '--shared',
            str(shared.resolve()),
            '--work-dir',
            str(tmp_path),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr
    report = json.loads((tmp_path / 'keyframe' / 'report.json').read_text())
    assert report['median_depth_difference'] < 0.4
    assert report['pixels'] > 10000
    assert {'loss_occ', 'loss_rdc', 'loss_rsc_affinity'} < set(report['losses'])
    for name in ('occupancy.png', 'rendering.png'):
        assert (tmp_path / 'keyframe' / name).stat().st_size > 10**5
