import math

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from tests.support.label_spaces import small_space

from radocc_plugin.evaluation import LidarSegMetric, count_points, lidarseg_scores
from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.occ3d import CLASSES, FREE, LIDARSEG_TO_OCC3D
from radocc_plugin.structures import OccData, OccDataSample

RANGE = (-2.0, -2.0, -1.0, 2.0, 2.0, 1.0)
GRID = VoxelGrid(RANGE, (4, 4, 2))
CAR, PEDESTRIAN = 17, 2  # nuScenes-lidarseg indices


def test_points_take_the_class_of_their_voxel():
    prediction = torch.full(GRID.shape, FREE, dtype=torch.uint8)
    prediction[2, 2, 1] = 4
    prediction[3, 2, 1] = 7
    points = torch.tensor(
        [[0.5, 0.5, 0.5], [1.5, 0.5, 0.5], [0.5, 0.5, -0.5], [2.5, 0.0, 0.0], [0.0, 0.0, -1.001]]
    )
    counts = count_points(prediction, points.double(), torch.tensor([4] * 5), GRID, 18)
    # right, pedestrian, free, and two points outside
    assert counts[4, [4, 7, FREE, FREE + 1]].tolist() == [1, 1, 1, 2]
    assert counts.sum() == 5


def test_scores_equal_the_definition_over_points():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 17, 4000)
    predicted = rng.integers(0, 19, 4000)  # 17 free, 18 outside
    counts = torch.zeros(17, 19, dtype=torch.long)
    for t, p in zip(truth, predicted):
        counts[t, p] += 1
    kept = (truth != 0) & (predicted != 18)
    ious = []
    for c in range(1, 17):
        hits = ((truth == c) & (predicted == c) & kept).sum()
        union = (((truth == c) | (predicted == c)) & kept).sum()
        ious.append(100 * hits / union)
    result = lidarseg_scores(counts, CLASSES)
    assert result['mIoU'] == pytest.approx(np.mean(ious))
    assert [result[f'IoU_{c}'] for c in CLASSES[1:FREE]] == pytest.approx(ious)
    labelled = truth != 0
    assert result['out_of_range'] == pytest.approx(100 * (predicted[labelled] == 18).mean())
    assert result['free'] == pytest.approx(100 * (predicted[kept] == 17).mean())


def test_unlabelled_points_are_ignored_and_absent_classes_nan():
    counts = torch.zeros(17, 19, dtype=torch.long)
    counts[0, 4], counts[4, 4] = 100, 3
    result = lidarseg_scores(counts, CLASSES)
    assert result['mIoU'] == result['IoU_car'] == 100
    assert math.isnan(result['IoU_bus'])


def write_points(folder, points, labels):
    columns = np.zeros((len(points), 5), np.float32)
    columns[:, :3] = points
    columns.tofile(folder / 'points.pcd.bin')
    np.array(labels, np.uint8).tofile(folder / 'labels.bin')


@pytest.fixture
def sample(tmp_path):
    """A car 1.5 m ahead and a pedestrian whose voxel is predicted free."""
    # the LiDAR looks along the ego's y axis, 0.5 m above its origin
    lidar2ego = np.eye(4)
    lidar2ego[:2, :2] = [[0, 1], [-1, 0]]
    lidar2ego[2, 3] = 0.5
    write_points(tmp_path, [[0.5, 1.5, 0], [0.5, -1.5, 0], [0, 9, 0]], [CAR, PEDESTRIAN, CAR])
    semantics = torch.full(GRID.shape, FREE, dtype=torch.uint8)
    semantics[3, 1, 1] = 4
    occupied = torch.full(GRID.shape, 16, dtype=torch.uint8)
    occupied[3, 1, 1], occupied[0, 1, 1] = 4, 7
    return OccDataSample(
        pred_occ=OccData(semantics=semantics, semantics_occupied=occupied),
        metainfo=dict(
            token='t0',
            lidar2ego=lidar2ego,
            bda_mat=np.eye(4),
            lidar_path=str(tmp_path / 'points.pcd.bin'),
            lidarseg_path=str(tmp_path / 'labels.bin'),
        ),
    )


def evaluate(sample, **kwargs):
    evaluator = Evaluator(LidarSegMetric(**kwargs))
    evaluator.dataset_meta = small_space(RANGE, 1.0).metainfo()
    evaluator.process([sample])
    return evaluator.evaluate(1)


@pytest.mark.parametrize('free_voxels,pedestrian', [('miss', 0), ('occupied', 100)])
def test_free_voxels_miss_or_take_the_likeliest_occupied_class(sample, free_voxels, pedestrian):
    result = evaluate(sample, free_voxels=free_voxels)
    assert result['lidarseg/IoU_car'] == 100
    assert result['lidarseg/IoU_pedestrian'] == pedestrian
    assert result['lidarseg/out_of_range'] == pytest.approx(100 / 3)


def test_metric_streams_one_small_array_a_sample(sample):
    metric = LidarSegMetric()
    metric.dataset_meta = small_space(RANGE, 1.0).metainfo()
    metric.process(None, [sample.to_dict()])
    assert [r.shape for r in metric.results] == [(17, 19)]


def test_mirrored_ego_frames_mirror_the_points(sample):
    mirrored = sample.clone()
    mirrored.set_metainfo(dict(bda_mat=np.diag([-1.0, 1.0, 1.0, 1.0])))
    mirrored.pred_occ = OccData(semantics=sample.pred_occ.semantics.flip(0))
    assert evaluate(mirrored) == pytest.approx(evaluate(sample), nan_ok=True)


def test_lidarseg_classes_are_the_official_sixteen():
    official = {
        9: 1,
        14: 2,
        15: 3,
        16: 3,
        17: 4,
        18: 5,
        21: 6,
        2: 7,
        3: 7,
        4: 7,
        6: 7,
        12: 8,
        22: 9,
        23: 10,
        24: 11,
        25: 12,
        26: 13,
        27: 14,
        28: 15,
        30: 16,
    }
    assert LIDARSEG_TO_OCC3D == tuple(official.get(i, 0) for i in range(32))


@pytest.mark.parametrize(
    'points,labels,message',
    [
        (np.zeros((2, 3)), [1], r'labels.bin takes one uint8 .* 2 points'),
        (np.zeros((0, 3)), [], r'points.pcd.bin takes 5 float32 a point'),
        (np.zeros((1, 3)), [40], r'labels.bin takes labels 0 to 31, got 40'),
    ],
)
def test_bad_files_are_named(sample, tmp_path, points, labels, message):
    write_points(tmp_path, points, labels)
    with pytest.raises(ValueError, match=message):
        evaluate(sample)


def test_missing_files_and_fields_are_named(sample):
    sample.set_metainfo(dict(lidarseg_path='nowhere.bin'))
    with pytest.raises(ValueError, match='cannot read .*nowhere.bin'):
        evaluate(sample)
    del sample.pred_occ.semantics_occupied
    with pytest.raises(ValueError, match='pred_occ.semantics_occupied of'):
        evaluate(sample, free_voxels='occupied')
    with pytest.raises(ValueError, match="free_voxels takes .* got 'x'"):
        LidarSegMetric(free_voxels='x')
