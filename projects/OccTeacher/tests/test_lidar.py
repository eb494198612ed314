"""LiDAR voxel features."""

import numpy as np
import pytest
import torch

from radocc_plugin.models.occ_teacher import VoxelMean
from tests.support.models import make_batch

RANGE = (-4, -4, -1, 4, 4, 1)


def test_voxel_features_are_means_over_the_points():
    encoder = VoxelMean(RANGE, 0.5)
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(500, 5, generator=generator) * torch.tensor(
        [10, 10, 3, 255, 0.5]
    ) - torch.tensor([5, 5, 1.5, 0, 0])
    volume = encoder([points])
    assert volume.shape == (1, 6, 4, 16, 16)
    cells, inside = encoder.grid.index(points[:, :3])
    expected = torch.zeros_like(volume[0])
    for cell in cells[inside].unique(dim=0):
        members = points[inside & (cells == cell).all(1)]
        x, y, z = cell.tolist()
        mean = members.mean(0)
        centre = encoder.grid.centres()[x, y, z]
        expected[:, z, y, x] = torch.tensor(
            [*((mean[:3] - centre) / 0.5), mean[3] / 255, mean[4], np.log1p(len(members))]
        )
    torch.testing.assert_close(volume[0], expected, rtol=1e-4, atol=1e-5)


def test_order_of_points_does_not_matter():
    encoder = VoxelMean(RANGE, 0.5)
    points = make_batch()[0]['points'][0]
    shuffled = points[torch.randperm(len(points))]
    torch.testing.assert_close(encoder([points]), encoder([shuffled]))


def test_an_empty_cloud_gives_an_empty_volume():
    encoder = VoxelMean(RANGE, 0.5)
    far = torch.full((3, 5), 100.0)
    for cloud in (torch.zeros(0, 5), far):
        assert not encoder([cloud]).any()


def test_points_of_a_wrong_shape_are_named():
    with pytest.raises(ValueError, match=r'points take shape \(P, 5\)'):
        VoxelMean(RANGE, 0.5)([torch.zeros(3, 4)])
