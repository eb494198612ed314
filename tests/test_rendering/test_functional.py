import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radocc_plugin.geometry import VoxelGrid, traverse
from radocc_plugin.rendering import (accumulate, expected_depth,
                                     segment_transmittance, termination)

GRID = VoxelGrid((-2, -3, 0, 3, 2, 1.5), (5, 6, 3))


def packed_rays(num=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    origins = torch.rand(num, 3, generator=generator) * 4 - 2
    directions = torch.randn(num, 3, generator=generator)
    return traverse(origins, directions, GRID)


def naive(optical_depth, near, far, values, segments):
    """One ray after the other, from the definition."""
    weights, no_hit, depth, rendered = [], [], [], []
    for ray in range(segments.num_rays):
        own = range(*segments.offsets[ray:ray + 2].tolist())
        transmittance = optical_depth.new_ones(())
        d = optical_depth.new_zeros(())
        v = values.new_zeros(values.shape[1])
        for k in own:
            tau = optical_depth[k]
            alpha = 1 - torch.exp(-tau)
            weight = transmittance * alpha
            # integral of t * density * e^(-density (t - near)) over a voxel
            mean = (near[k] * alpha + (far[k] - near[k]) *
                    (1 - (1 + tau) * torch.exp(-tau)) / tau)
            d = d + transmittance * mean
            v = v + weight * values[segments.voxel[k]]
            weights.append(weight)
            transmittance = transmittance * torch.exp(-tau)
        no_hit.append(transmittance)
        depth.append(d)
        rendered.append(v)
    return (torch.stack(weights), torch.stack(no_hit), torch.stack(depth),
            torch.stack(rendered))


def test_equals_the_definition_in_float64():
    segments = packed_rays()
    generator = torch.Generator().manual_seed(1)
    density = torch.rand(
        GRID.num_voxels, generator=generator, dtype=torch.float64) * 3
    values = torch.randn(
        GRID.num_voxels, 4, generator=generator, dtype=torch.float64)
    near, far = segments.near.double(), segments.far.double()
    optical_depth = density[segments.voxel] * segments.length.double()
    weights, no_hit = termination(optical_depth, segments.offsets)
    depth = expected_depth(optical_depth, weights, near, far,
                           segments.offsets)
    rendered = accumulate(weights, values, segments.voxel, segments.offsets)
    expected = naive(optical_depth, near, far, values, segments)
    torch.testing.assert_close(weights, expected[0])
    torch.testing.assert_close(no_hit, expected[1])
    torch.testing.assert_close(depth, expected[2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rendered, expected[3])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-6, 0.1, 10., 1e6]))
def test_weights_and_no_hit_sum_to_one(seed, scale):
    segments = packed_rays(10, seed)
    generator = torch.Generator().manual_seed(seed)
    optical_depth = torch.rand(
        len(segments.voxel), generator=generator) * scale
    weights, no_hit = termination(optical_depth, segments.offsets)
    total = no_hit.clone().index_add(0, segments.ray, weights)
    torch.testing.assert_close(total, torch.ones(10))


def test_one_opaque_wall_is_seen_at_its_distance():
    segments = traverse(
        torch.tensor([[-1.9, 0.1, 0.1]]), torch.tensor([[1., 0, 0]]), GRID)
    density = torch.zeros(GRID.num_voxels)
    density[segments.voxel[3]] = 1e4
    optical_depth = density[segments.voxel] * segments.length
    weights, no_hit = termination(optical_depth, segments.offsets)
    depth = expected_depth(optical_depth, weights, segments.near,
                           segments.far, segments.offsets)
    assert float(no_hit) == 0
    assert float(depth) == pytest.approx(float(segments.near[3]), abs=1e-3)


def test_empty_space_is_never_hit():
    segments = packed_rays()
    weights, no_hit = termination(
        torch.zeros(len(segments.voxel)), segments.offsets)
    assert bool((weights == 0).all()) and bool((no_hit == 1).all())


def test_gradients_pass_gradcheck():
    segments = packed_rays(6)
    near, far = segments.near.double(), segments.far.double()
    length = segments.length.double()
    generator = torch.Generator().manual_seed(2)
    density = (0.1 + torch.rand(
        GRID.num_voxels, generator=generator,
        dtype=torch.float64)).requires_grad_()
    values = torch.randn(
        GRID.num_voxels, 3, generator=generator,
        dtype=torch.float64).requires_grad_()

    def render(density, values):
        optical_depth = density[segments.voxel] * length
        weights, no_hit = termination(optical_depth, segments.offsets)
        depth = expected_depth(optical_depth, weights, near, far,
                               segments.offsets)
        rendered = accumulate(weights, values, segments.voxel,
                              segments.offsets)
        return no_hit, depth, rendered

    assert torch.autograd.gradcheck(render, (density, values))


def test_a_large_batch_is_as_exact_as_one_ray():
    """A float32 running sum over all rays would lose the first digit."""
    repeat = 20000
    segments = traverse(
        torch.tensor([[-1.9, 0.1, 0.1]]), torch.tensor([[1., 0.3, 0]]), GRID)
    num = len(segments.voxel)
    optical_depth = torch.full((num, ), 0.3)
    alone, _ = segment_transmittance(optical_depth, segments.offsets)
    offsets = torch.arange(repeat + 1) * num
    many, _ = segment_transmittance(optical_depth.repeat(repeat), offsets)
    assert float((many.view(repeat, num) - alone).abs().max()) < 1e-5


def test_wrong_offsets_are_named():
    with pytest.raises(ValueError, match='offsets'):
        termination(torch.ones(5), torch.tensor([0, 3]))
