import numpy as np
import pytest
import torch

from radocc_plugin.datasets import (
    AugmentBEV,
    AugmentMultiViewImages,
    LoadLidarPoints,
    LoadMultiViewImages,
    PointsToDepthMaps,
)
from radocc_plugin.fileio import read_lidar_file
from radocc_plugin.geometry import Cameras

EVERYTHING = (0.0, 0.0, 0.0, 0.0)  # an ego vehicle without extent


def _in_global(sample, points):
    ego2global = sample['ego2global']
    return points[:, :3] @ ego2global[:3, :3].T + ego2global[:3, 3]


def test_sweeps_are_moved_into_the_key_ego_frame(sample, tiny_infos):
    loaded = LoadLidarPoints(num_sweeps=10, ego_vehicle=EVERYTHING)(sample)['points']
    sweep = tiny_infos[0]['lidar_sweeps'][0]
    raw = read_lidar_file(sample['lidar_sweeps'][0]['lidar_path'])
    lidar2global = sweep['ego2global'] @ sweep['lidar2ego']
    expected = raw[:, :3] @ lidar2global[:3, :3].T + lidar2global[:3, 3]
    past = loaded[:, 4] > 0
    assert loaded.shape == (800, 5) and past.sum() == 400
    np.testing.assert_allclose(_in_global(sample, loaded[past]), expected, atol=1e-6)
    np.testing.assert_allclose(loaded[past, 4], 0.05, atol=1e-6)


def test_the_ego_vehicle_is_removed_in_the_sensor_frame(sample, tmp_path):
    path = tmp_path / 'points.pcd.bin'
    points = np.zeros((3, 5), np.float32)
    points[:, :2] = (0.9, 2.3), (1.1, 2.3), (0.9, 2.5)
    points.tofile(path)
    sample.update(lidar_path=str(path), lidar2ego=np.eye(4))
    loaded = LoadLidarPoints()(sample)['points']
    np.testing.assert_array_equal(loaded[:, :3].astype(np.float32), points[1:, :3])


@pytest.mark.parametrize('content', (None, b'', b'1234' * 7))
def test_a_bad_lidar_file_is_named(sample, tmp_path, content):
    path = tmp_path / 'broken.pcd.bin'
    if content is not None:
        path.write_bytes(content)
    sample['lidar_path'] = str(path)
    with pytest.raises(ValueError, match='broken.pcd.bin'):
        LoadLidarPoints()(sample)


@pytest.mark.parametrize('flip_x', (0.0, 1.0))
def test_depth_maps_hold_the_nearest_projected_point(sample, flip_x):
    np.random.seed(0)
    for transform in (
        LoadMultiViewImages(),
        AugmentMultiViewImages((24, 64), (-0.2, 0.3), (0, 0), 0.5, (-9, 9)),
        LoadLidarPoints(),
        AugmentBEV(flip_x),
        PointsToDepthMaps((1.0, 30.0)),
    ):
        sample = transform(sample)
    cameras = Cameras(
        *(torch.from_numpy(sample[name])[None] for name in ('cam2img', 'cam2ego', 'bda_mat')),
        image_size=(45, 80),
    )
    pixels, depths = cameras.project(torch.from_numpy(sample['points'][None, :, :3].copy()))
    expected = np.zeros((6, 24, 64), np.float32)
    for camera in range(6):
        for (u, v), depth in zip(pixels[0, camera], depths[0, camera]):
            column, row, *_ = sample['img_aug_mat'][camera] @ (u, v, depth, 1)
            column, row = int(np.floor(column)), int(np.floor(row))
            if 1 <= depth < 30 and 0 <= column < 64 and 0 <= row < 24:
                before = expected[camera, row, column]
                expected[camera, row, column] = min(before or np.inf, depth)
    assert (expected > 0).sum() > 100
    np.testing.assert_allclose(sample['gt_depth'], expected, rtol=1e-6)


def test_depth_maps_leave_past_sweeps_out(sample):
    sample = LoadMultiViewImages()(sample)
    maps = [
        PointsToDepthMaps()(LoadLidarPoints(sweeps)(dict(sample)))['gt_depth'] for sweeps in (0, 1)
    ]
    np.testing.assert_array_equal(*maps)


def test_depth_maps_need_points(sample):
    with pytest.raises(ValueError, match='LoadLidarPoints'):
        PointsToDepthMaps()(LoadMultiViewImages()(sample))


def test_an_empty_depth_range_is_refused():
    with pytest.raises(ValueError, match='depth_range'):
        PointsToDepthMaps((5.0, 5.0))


def _points(number, columns, generator):
    points = generator.uniform(-40, 40, (number, 5)).astype(np.float32)
    points[:, 3] = generator.integers(0, 256, number)
    points[:, 4] = generator.integers(0, 32, number)
    return points[:, :columns]


@pytest.mark.parametrize('told', (4, 5))
@pytest.mark.parametrize('columns', (4, 5))
def test_columns_are_those_of_the_file(tmp_path, told, columns):
    """Sizes divide by both; infos of both kinds say the wrong number."""
    path = tmp_path / 'x.pcd.bin'
    points = _points(200, columns, np.random.default_rng(0))
    points.tofile(path)
    read = read_lidar_file(str(path), told)
    np.testing.assert_array_equal(read[:, :columns], points)
    assert read.shape == (200, 5) and (columns == 5 or (read[:, 4] == -1).all())


def test_more_columns_are_told_by_the_infos(make_dataset, tiny_infos, tmp_path):
    points = _points(40, 5, np.random.default_rng(0))
    path = tmp_path / 'wide.bin'
    np.hstack([points, points[:, :2]]).astype(np.float32).tofile(path)
    tiny_infos[0]['lidar_points'].update(lidar_path=str(path), num_pts_feats=7)
    loaded = LoadLidarPoints(ego_vehicle=EVERYTHING)(make_dataset(tiny_infos).get_data_info(0))[
        'points'
    ]
    np.testing.assert_array_equal(loaded[:, 3], points[:, 3])


def test_a_file_of_no_known_columns_is_refused(tmp_path):
    path = tmp_path / 'odd.bin'
    np.full((20, 7), -1, np.float32).tofile(path)
    with pytest.raises(ValueError, match='odd.bin .*intensity'):
        read_lidar_file(str(path))


def test_sweeps_that_no_info_lists_are_an_error(sample):
    sample.update(lidar_sweeps=[], prev='token')
    with pytest.raises(ValueError, match='lists no past sweeps'):
        LoadLidarPoints(num_sweeps=9)(sample)
    assert len(LoadLidarPoints(num_sweeps=0)(sample)['points'])
