"""A dump is evaluated as the model's own predictions would be."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator

from radocc_plugin import occ3d
from radocc_plugin.commands import score_predictions
from radocc_plugin.datasets.info_file import save_infos
from radocc_plugin.evaluation import (
    DumpPredictions,
    OccMetric,
    RayIoU,
    prediction_path,
    read_prediction,
    write_prediction,
)
from radocc_plugin.structures import OccData, OccDataSample

ROOT = Path(__file__).resolve().parents[2]
SPACE = occ3d.OCC3D_NUSCENES
TOKENS = ('t0', 't1', 't2')


@pytest.fixture(scope='module')
def tool():
    return score_predictions


def labels(seed):
    rng = np.random.default_rng(seed)
    volume = np.full(occ3d.GRID_SHAPE, occ3d.FREE, np.uint8)
    volume[..., 2] = 11
    for x, y in rng.integers(0, 190, (30, 2)):
        volume[x : x + 8, y : y + 4, 2:8] = rng.integers(0, 17)
    return volume


def info(index, token):
    pose = np.eye(4)
    pose[0, 3] = 4.0 * index
    lidar2ego = np.eye(4)
    lidar2ego[:3, 3] = 0.98, 0, 1.84
    image = dict(img_path='none.jpg', cam2img=np.eye(3), cam2ego=np.eye(4), ego2global=pose)
    return dict(
        token=token,
        sample_idx=index,
        timestamp=0.5 * index,
        prev='',
        next='',
        scene_name='scene-1',
        scene_token='s1',
        ego2global=pose,
        images={name: image for name in occ3d.CAMERAS},
        lidar_points=dict(lidar_path='none.bin', lidar2ego=lidar2ego),
        lidar_sweeps=[],
        occ_path=f'gts/scene-1/{token}/labels.npz',
    )


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    infos = [info(i, token) for i, token in enumerate(TOKENS)]
    save_infos(dict(metainfo={}, data_list=infos), str(root / 'radocc_infos_val.pkl'))
    mask = np.zeros(occ3d.GRID_SHAPE, np.uint8)
    mask[50:150, 60:160] = 1
    for index, one in enumerate(infos):
        path = root / one['occ_path']
        path.parent.mkdir(parents=True)
        np.savez_compressed(path, semantics=labels(index), mask_camera=mask, mask_lidar=mask)
    return root


def samples(data_root):
    for index, token in enumerate(TOKENS):
        with np.load(data_root / f'gts/scene-1/{token}/labels.npz') as file:
            truth = {k: torch.from_numpy(file[k]) for k in file.files}
        yield OccDataSample(
            gt_occ=OccData(**truth),
            pred_occ=OccData(semantics=torch.from_numpy(np.roll(labels(index), 1, 0))),
            metainfo=dict(
                token=token,
                scene_name='scene-1',
                lidar_origins=torch.tensor(
                    [[0.98 + 4 * (i - index), 0, 1.84] for i in range(len(TOKENS))]
                ),
            ),
        )


@pytest.fixture(scope='module')
def dump(data_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp('dump')
    evaluator = Evaluator(DumpPredictions(str(folder)))
    for sample in samples(data_root):
        evaluator.process([sample])
    assert evaluator.evaluate(3) == {'dump/num_samples': 3}
    return folder


def test_dump_has_the_layout_of_the_labels(dump):
    files = sorted(p.relative_to(dump) for p in dump.rglob('*.npz'))
    assert files == [Path('scene-1', t, 'labels.npz') for t in TOKENS]
    with np.load(dump / files[0]) as file:
        assert file.files == ['semantics']
        assert file['semantics'].dtype == np.uint8
    assert torch.equal(
        read_prediction(dump / files[1], SPACE), torch.from_numpy(np.roll(labels(1), 1, 0))
    )


def test_dump_scores_as_the_predictions_do(tool, data_root, dump, tmp_path):
    scores = tool.main(
        [
            str(dump),
            '--data-root',
            str(data_root),
            '--metrics',
            'miou',
            'rayiou',
            '--workers',
            '2',
            '--out',
            str(tmp_path / 'scores.json'),
        ]
    )
    evaluator = Evaluator([OccMetric(), RayIoU()])
    evaluator.dataset_meta = SPACE.metainfo()
    for sample in samples(data_root):
        evaluator.process([sample])
    want = evaluator.evaluate(len(TOKENS))
    assert {k: v for k, v in scores.items() if v is not None} == pytest.approx(
        {k: v for k, v in want.items() if v == v}
    )
    written = json.loads((tmp_path / 'scores.json').read_text())
    assert written['num_samples'] == 3 and written['mask'] == 'camera'
    assert written['scores'] == scores


def test_mask_and_ring_reach_the_metric(tool, data_root, dump):
    arguments = [str(dump), '--data-root', str(data_root), '--workers', '1']
    results = [
        tool.main([*arguments, *more])['occ/mIoU']
        for more in ([], ['--mask', 'none'], ['--ring', '5', '15'])
    ]
    assert len(set(results)) == 3


@pytest.mark.parametrize('key_ego,miou', [('CAM_FRONT', 100), ('lidar', 0)])
def test_points_are_placed_in_the_key_ego_frame(tool, tmp_path, key_ego, miou):
    """The camera was 8 m further when it fired: 20 voxels."""
    one = info(0, 't0')
    later = np.eye(4)
    later[0, 3] = 8
    one['images']['CAM_FRONT'] = dict(one['images']['CAM_FRONT'], ego2global=later)
    one['lidar_points'] = dict(lidar_path='points.bin', lidar2ego=np.eye(4))
    one['lidarseg_path'] = 'labels.bin'
    save_infos(dict(metainfo={}, data_list=[one]), str(tmp_path / 'radocc_infos_val.pkl'))
    np.array([[10.1, 0.1, 0.1, 0, 0]], np.float32).tofile(tmp_path / 'points.bin')
    np.array([17], np.uint8).tofile(tmp_path / 'labels.bin')
    volume = np.full(occ3d.GRID_SHAPE, occ3d.FREE, np.uint8)
    path = tmp_path / one['occ_path']
    path.parent.mkdir(parents=True)
    np.savez_compressed(path, semantics=volume, mask_camera=volume, mask_lidar=volume)
    # x = 2.1 m in the later frame
    volume[105, 100, 2] = occ3d.CLASSES.index('car')
    write_prediction(prediction_path(tmp_path / 'dump', 'scene-1', 't0'), torch.from_numpy(volume))
    scores = tool.main(
        [
            str(tmp_path / 'dump'),
            '--data-root',
            str(tmp_path),
            '--metrics',
            'lidarseg',
            '--workers',
            '1',
            '--key-ego',
            key_ego,
        ]
    )
    assert scores['lidarseg/mIoU'] == miou


def test_missing_predictions_are_counted(tool, data_root, dump, tmp_path):
    path = prediction_path(tmp_path, 'scene-1', 't1')
    write_prediction(path, torch.from_numpy(labels(1)))
    with pytest.raises(ValueError, match='2 of 3 predictions .*t0'):
        tool.main([str(tmp_path), '--data-root', str(data_root)])


@pytest.mark.parametrize(
    'content,message',
    [
        (None, 'takes the field semantics'),
        (dict(other=np.zeros(3)), 'takes the field semantics'),
        (dict(semantics=np.zeros((2, 2, 2), np.uint8)), 'takes integers of shape'),
        (dict(semantics=np.zeros(occ3d.GRID_SHAPE)), 'takes integers .* float64'),
        (dict(semantics=np.full(occ3d.GRID_SHAPE, 18, np.uint8)), 'takes classes 0 to 17, got 18'),
    ],
)
def test_bad_predictions_name_the_file(tmp_path, content, message):
    path = tmp_path / 'labels.npz'
    if content is None:
        path.write_bytes(b'PK broken')
    else:
        np.savez(path, **content)
    with pytest.raises(ValueError, match=f'labels.npz {message}'):
        read_prediction(path, SPACE)


@pytest.mark.parametrize(
    'volume',
    [torch.zeros(100, 100, 16, dtype=torch.uint8), torch.full(SPACE.shape, 18, dtype=torch.uint8)],
    ids=['another grid', 'an unknown class'],
)
def test_a_dump_that_its_reader_refuses_is_not_written(tmp_path, volume):
    metric = DumpPredictions(str(tmp_path))
    metric.dataset_meta = SPACE.metainfo()
    sample = dict(scene_name='s', token='t', pred_occ=dict(semantics=volume))
    with pytest.raises(ValueError, match='semantics of prediction'):
        metric.process(None, [sample])
    assert not list(tmp_path.rglob('*.npz'))
