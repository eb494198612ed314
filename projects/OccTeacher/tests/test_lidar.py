"""LiDAR voxel features and depth maps."""
import numpy as np
import pytest
import torch

from projects.BEVDetOcc.bevdet_occ import ViewGeometry
from projects.conftest import make_batch, make_sample
from projects.OccTeacher.occ_teacher import VoxelMean
from projects.OccTeacher.occ_teacher.lidar import lidar_depth_maps
from radocc_plugin.geometry import Cameras

RANGE = (-4, -4, -1, 4, 4, 1)


def test_voxel_features_are_means_over_the_points():
    encoder = VoxelMean(RANGE, 0.5)
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(500, 5, generator=generator) * torch.tensor(
        [10, 10, 3, 255, 0.5]) - torch.tensor([5, 5, 1.5, 0, 0])
    volume = encoder([points])
    assert volume.shape == (1, 6, 4, 16, 16)
    cells, inside = encoder.grid.index(points[:, :3])
    expected = torch.zeros_like(volume[0])
    for cell in cells[inside].unique(dim=0):
        members = points[inside & (cells == cell).all(1)]
        x, y, z = cell.tolist()
        mean = members.mean(0)
        centre = encoder.grid.centres()[x, y, z]
        expected[:, z, y, x] = torch.tensor([
            *((mean[:3] - centre) / 0.5), mean[3] / 255, mean[4],
            np.log1p(len(members))
        ])
    torch.testing.assert_close(volume[0], expected, rtol=1e-4, atol=1e-5)


def test_order_of_points_does_not_matter():
    encoder = VoxelMean(RANGE, 0.5)
    points = make_batch()[0]['points'][0]
    shuffled = points[torch.randperm(len(points))]
    torch.testing.assert_close(encoder([points]), encoder([shuffled]))


def test_an_empty_cloud_gives_an_empty_volume():
    encoder = VoxelMean(RANGE, 0.5)
    far = torch.full((3, 5), 100.)
    for cloud in (torch.zeros(0, 5), far):
        assert not encoder([cloud]).any()


def test_points_of_a_wrong_shape_are_named():
    with pytest.raises(ValueError, match=r'points take shape \(P, 5\)'):
        VoxelMean(RANGE, 0.5)([torch.zeros(3, 4)])


def test_depth_maps_hold_the_nearest_return_of_each_pixel():
    sample = make_sample()
    flip = np.diag([1., -1, 1, 1])
    sample.set_metainfo(dict(bda_mat=flip))
    cloud = make_batch()[0]['points'][0]
    cloud[::2, 4] = 0.1  # past sweeps are not drawn
    maps = lidar_depth_maps([cloud], ViewGeometry.from_data_samples([sample]),
                            (96, 256))
    current = cloud[cloud[:, 4] == 0, :3]
    pixels, depths = Cameras.from_data_samples([sample]).project(current[None])
    expected = torch.zeros(6, 96, 256)
    for camera in range(6):
        for (u, v), depth in zip(pixels[0, camera], depths[0, camera]):
            if depth > 0 and 0 <= u < 256 and 0 <= v < 96:
                held = expected[camera, int(v), int(u)]
                expected[camera, int(v), int(u)] = depth if held == 0 else min(
                    held, depth)
    assert (expected > 0).sum() > 100
    wrong = (maps - expected).abs() > 1e-3
    # float32 and float64 may put a point on a border into two pixels
    assert wrong.sum() <= 4
