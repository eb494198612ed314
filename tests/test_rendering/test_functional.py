import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radocc_plugin.geometry import VoxelGrid, traverse
from radocc_plugin.rendering import (
    expected_depth,
    packed_ray_kl,
    crossing_transmittance,
    sum_rays,
    termination,
)

GRID = VoxelGrid((-2, -3, 0, 3, 2, 1.5), (5, 6, 3))


def packed_rays(num=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    origins = torch.rand(num, 3, generator=generator) * 4 - 2
    directions = torch.randn(num, 3, generator=generator)
    return traverse(origins, directions, GRID)


def naive(optical_depth, near, far, values, crossings):
    """One ray after the other, from the definition."""
    weights, no_hit, depth, rendered = [], [], [], []
    for ray in range(crossings.num_rays):
        own = range(*crossings.offsets[ray : ray + 2].tolist())
        transmittance = optical_depth.new_ones(())
        d = optical_depth.new_zeros(())
        v = values.new_zeros(values.shape[1])
        for k in own:
            tau = optical_depth[k]
            alpha = 1 - torch.exp(-tau)
            weight = transmittance * alpha
            # integral of t * density * e^(-density (t - near)) over a voxel
            mean = near[k] * alpha + (far[k] - near[k]) * (1 - (1 + tau) * torch.exp(-tau)) / tau
            d = d + transmittance * mean
            v = v + weight * values[crossings.voxel[k]]
            weights.append(weight)
            transmittance = transmittance * torch.exp(-tau)
        no_hit.append(transmittance)
        depth.append(d)
        rendered.append(v)
    return (torch.stack(weights), torch.stack(no_hit), torch.stack(depth), torch.stack(rendered))


def test_equals_the_definition_in_float64():
    crossings = packed_rays()
    generator = torch.Generator().manual_seed(1)
    density = torch.rand(GRID.num_voxels, generator=generator, dtype=torch.float64) * 3
    values = torch.randn(GRID.num_voxels, 4, generator=generator, dtype=torch.float64)
    near, far = crossings.near.double(), crossings.far.double()
    optical_depth = density[crossings.voxel] * crossings.length.double()
    weights, no_hit = termination(optical_depth, crossings.offsets)
    depth = expected_depth(optical_depth, near, far, crossings.offsets)
    rendered = sum_rays(weights[:, None] * values[crossings.voxel], crossings.offsets)
    expected = naive(optical_depth, near, far, values, crossings)
    torch.testing.assert_close(weights, expected[0])
    torch.testing.assert_close(no_hit, expected[1])
    torch.testing.assert_close(depth, expected[2], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(rendered, expected[3])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-6, 0.1, 10.0, 1e6]))
def test_weights_and_no_hit_sum_to_one(seed, scale):
    crossings = packed_rays(10, seed)
    generator = torch.Generator().manual_seed(seed)
    optical_depth = torch.rand(len(crossings.voxel), generator=generator) * scale
    weights, no_hit = termination(optical_depth, crossings.offsets)
    total = no_hit.clone().index_add(0, crossings.ray, weights)
    torch.testing.assert_close(total, torch.ones(10))


def test_one_opaque_wall_is_seen_at_its_distance():
    crossings = traverse(torch.tensor([[-1.9, 0.1, 0.1]]), torch.tensor([[1.0, 0, 0]]), GRID)
    density = torch.zeros(GRID.num_voxels)
    density[crossings.voxel[3]] = 1e4
    optical_depth = density[crossings.voxel] * crossings.length
    _, no_hit = termination(optical_depth, crossings.offsets)
    depth = expected_depth(optical_depth, crossings.near, crossings.far, crossings.offsets)
    assert float(no_hit) == 0
    assert float(depth) == pytest.approx(float(crossings.near[3]), abs=1e-3)


def test_empty_space_is_never_hit():
    crossings = packed_rays()
    weights, no_hit = termination(torch.zeros(len(crossings.voxel)), crossings.offsets)
    assert bool((weights == 0).all()) and bool((no_hit == 1).all())


def test_a_large_batch_is_as_exact_as_one_ray():
    """A float32 running sum over all rays would lose the first digit."""
    repeat = 20000
    crossings = traverse(torch.tensor([[-1.9, 0.1, 0.1]]), torch.tensor([[1.0, 0.3, 0]]), GRID)
    num = len(crossings.voxel)
    optical_depth = torch.full((num,), 0.3)
    alone, _ = crossing_transmittance(optical_depth, crossings.offsets)
    offsets = torch.arange(repeat + 1) * num
    many, _ = crossing_transmittance(optical_depth.repeat(repeat), offsets)
    assert float((many.view(repeat, num) - alone).abs().max()) < 1e-5


def test_wrong_offsets_are_named():
    with pytest.raises(ValueError, match='offsets'):
        termination(torch.ones(5), torch.tensor([0, 3]))


OFFSETS = torch.tensor([0, 4, 4, 9])


def depths(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(9, generator=generator, dtype=torch.float64) * 2 + 0.01


def naive_kl(teacher, student):
    """KL of the explicit distributions with the no-hit bin."""
    out = []
    weights = [termination(x, OFFSETS) for x in (teacher, student)]
    for ray in range(3):
        own = slice(OFFSETS[ray], OFFSETS[ray + 1])
        p, q = (torch.cat((w[own], no_hit[ray : ray + 1])) for w, no_hit in weights)
        out.append((p * (p / q).log()).sum())
    return torch.stack(out)


def test_kl_equals_that_of_the_explicit_distributions():
    teacher, student = depths(0), depths(1)
    torch.testing.assert_close(packed_ray_kl(teacher, student, OFFSETS), naive_kl(teacher, student))


def test_an_unsure_student_pays_although_its_mean_depth_is_right():
    offsets = torch.tensor([0, 5])
    wall = torch.tensor([0.0, 0, 50, 0, 0])
    unsure = torch.tensor([0.0, 0.7, 0.7, 50, 0])
    sharp, blurred = (packed_ray_kl(wall, s, offsets) for s in (wall, unsure))
    assert float(sharp) < 1e-4 < 0.5 < float(blurred)


def test_depths_that_disagree_are_named():
    with pytest.raises(ValueError, match='student_optical_depth'):
        packed_ray_kl(torch.ones(3), torch.ones(4), torch.tensor([0, 3]))
