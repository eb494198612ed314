"""tools/test.py with every metric, augmented, dumped, and read again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from radocc_plugin.datasets.info_file import load_infos, save_infos
from radocc_plugin.evaluation import read_prediction
from radocc_plugin.occ3d import OCC3D_NUSCENES
from radocc_plugin.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
STUDENT = 'projects/BEVDetOcc/configs/bevdet-occ_tiny_1xb1-3e_synthetic.py'
DISTILLED = 'configs/radocc/radocc_bevdet-occ_tiny_1xb1-3e_synthetic.py'
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group('augmented_test')]


def run(*command):
    result = subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The smallest world, a student's checkpoint, and its plain test."""
    folder = tmp_path_factory.mktemp('augmented')
    run(
        'tools/create_synthetic.py',
        '--data-root',
        folder / 'data',
        '--scenes-train',
        1,
        '--scenes-val',
        1,
        '--frames',
        2,
        '--image-size',
        400,
        225,
    )
    run(
        'tools/create_data.py',
        'occ3d-nuscenes',
        '--data-root',
        folder / 'data',
        '--version',
        'v1.0-synthetic',
    )
    torch.manual_seed(0)
    student = MODELS.build(Config.fromfile(ROOT / STUDENT).model)
    torch.save(dict(state_dict=student.state_dict()), folder / 'student.pth')
    run_test(folder, STUDENT, 'plain', '--metrics', 'miou', 'rayiou', '--dump', folder / 'dump')
    return folder


def run_test(folder, config, name, *arguments):
    run(
        'tools/test.py',
        config,
        folder / 'student.pth',
        '--work-dir',
        folder / 'work' / name,
        '--record',
        folder / f'{name}.json',
        *arguments,
        '--cfg-options',
        f'test_dataloader.dataset.data_root={folder / "data"}',
    )


def metrics(folder, name):
    return json.loads((folder / f'{name}.json').read_text())['metrics']


def test_dump_scores_as_the_test_did(folder):
    run(
        'tools/test.py',
        'predictions',
        folder / 'dump',
        '--data-root',
        folder / 'data',
        '--metrics',
        'miou',
        'rayiou',
        '--out',
        folder / 'scores.json',
    )
    scores = json.loads((folder / 'scores.json').read_text())['scores']
    plain = metrics(folder, 'plain')
    assert scores['occ/mIoU'] == pytest.approx(plain['mIoU'])
    assert scores['ray/RayIoU'] == pytest.approx(plain['RayIoU'])


def test_plain_view_of_a_distiller_is_the_student_s_test(folder):
    run_test(folder, DISTILLED, 'identity', '--tta', 'identity', '--metrics', 'miou', 'lidarseg')
    assert metrics(folder, 'identity')['mIoU'] == pytest.approx(metrics(folder, 'plain')['mIoU'])
    points = json.loads((folder / 'identity_points.json').read_text())
    assert points['mask'] == 'points'
    assert 0 < points['metrics']['out_of_range'] < 100


def test_the_test_split_is_dumped_without_labels(folder):
    infos = load_infos(folder / 'data' / 'radocc_infos_val.pkl')
    for info in infos['data_list']:
        del info['occ_path'], info['lidarseg_path']
        info['instances'] = []
    save_infos(infos, folder / 'data' / 'radocc_infos_test.pkl')
    run(
        'tools/test.py',
        STUDENT,
        folder / 'student.pth',
        '--work-dir',
        folder / 'work' / 'unlabelled',
        '--metrics',
        'none',
        '--dump',
        folder / 'unlabelled',
        '--cfg-options',
        f'test_dataloader.dataset.data_root={folder / "data"}',
        'test_dataloader.dataset.ann_file=radocc_infos_test.pkl',
    )
    paths = sorted((folder / 'dump').rglob('*.npz'))
    assert len(paths) == 2
    for path in paths:
        other = folder / 'unlabelled' / path.relative_to(folder / 'dump')
        assert torch.equal(
            read_prediction(other, OCC3D_NUSCENES), read_prediction(path, OCC3D_NUSCENES)
        )
    assert not list((folder / 'work' / 'unlabelled').rglob('record*.json'))


def test_augmented_test_says_so(folder):
    run_test(folder, STUDENT, 'augmented', '--tta', 'flip_x', 'flip_image')
    record = json.loads((folder / 'augmented.json').read_text())
    assert record['tta'] == ['flip_x', 'flip_image']
    assert record['metrics']['IoU'] != metrics(folder, 'plain')['IoU']
