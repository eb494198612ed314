"""Depth-weighted pooling of image features into voxels."""

import torch

from radocc_plugin.models.lift_splat import bev_pool

CAMERAS, BINS, HEIGHT, WIDTH, CHANNELS, VOXELS = 2, 3, 2, 4, 5, 6


def random_problem(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    depth = torch.rand(CAMERAS, BINS, HEIGHT, WIDTH, generator=generator, dtype=dtype)
    features = torch.randn(CAMERAS, CHANNELS, HEIGHT, WIDTH, generator=generator, dtype=dtype)
    points = torch.randperm(depth.numel(), generator=generator)[:30]
    # the last voxel stays empty
    voxels = torch.randint(VOXELS - 1, (30,), generator=generator)
    voxels, order = voxels.sort()
    return depth, features, points[order], voxels


def offsets_of(voxel_of):
    return torch.searchsorted(voxel_of, torch.arange(VOXELS))


def test_equals_a_loop_over_points():
    depth, features, point_of, voxel_of = random_problem()
    expected = torch.zeros(VOXELS, CHANNELS, dtype=depth.dtype)
    for point, voxel in zip(point_of.tolist(), voxel_of.tolist()):
        camera, bin_, row, column = torch.unravel_index(torch.tensor(point), depth.shape)
        weight = depth[camera, bin_, row, column]
        expected[voxel] += weight * features[camera, :, row, column]
    pooled = bev_pool(depth, features, point_of, offsets_of(voxel_of))
    torch.testing.assert_close(pooled, expected)
    assert not pooled[-1].any()


def test_gradients_are_those_of_finite_differences():
    depth, features, point_of, voxel_of = random_problem()
    assert torch.autograd.gradcheck(
        lambda d, f: bev_pool(d, f, point_of, offsets_of(voxel_of)),
        (depth.requires_grad_(), features.requires_grad_()),
    )


def test_order_of_points_within_a_voxel_does_not_matter():
    depth, features, point_of, voxel_of = random_problem()
    shuffled = torch.randperm(len(point_of), generator=torch.Generator().manual_seed(1))
    voxels, order = voxel_of[shuffled].sort(stable=True)
    torch.testing.assert_close(
        bev_pool(depth, features, point_of[shuffled][order], offsets_of(voxels)),
        bev_pool(depth, features, point_of, offsets_of(voxel_of)),
    )


def test_without_points_the_volume_is_zero():
    depth, features, point_of, voxel_of = random_problem()
    features.requires_grad_()
    pooled = bev_pool(depth, features, point_of[:0], offsets_of(voxel_of[:0]))
    assert pooled.shape == (VOXELS, CHANNELS) and not pooled.any()
    pooled.sum().backward()
    assert not features.grad.any()


def test_half_precision_features_are_summed_in_float32():
    depth, features, point_of, voxel_of = random_problem(torch.float32)
    offsets = offsets_of(voxel_of)
    pooled = bev_pool(depth, features.bfloat16(), point_of, offsets)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(
        pooled, bev_pool(depth, features.bfloat16().float(), point_of, offsets)
    )
