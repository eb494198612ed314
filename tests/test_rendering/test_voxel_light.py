"""The light that enters each voxel, and that ends there."""

from dataclasses import replace

import pytest
import torch

from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.rendering import density_from_logits, ray_kl, render, voxel_light
from tests.test_rendering.rendered import EXACT


def test_light_is_that_of_each_ray_walked_alone(geometry_of, volume_of, backend):
    geometry = geometry_of(50, batch=2)
    density, _ = volume_of(geometry)
    walk = geometry.walk(torch.float64)
    entered, ended = torch.zeros(2, len(density), dtype=torch.float64)
    for ray in range(50):
        left = 1.0
        for k in range(*walk.offsets[ray : ray + 2].tolist()):
            voxel = walk.voxel[k]
            passed = left * float(torch.exp(-density[voxel] * walk.length[k]))
            entered[voxel] += left
            ended[voxel] += left - passed
            left = passed
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        light = voxel_light(density.to(dtype), geometry, backend=backend, **EXACT)
        for got, want in zip(light, (entered, ended)):
            torch.testing.assert_close(got.double(), want, rtol=0, atol=tolerance)
            assert got.dtype == dtype


@pytest.mark.parametrize('axis', range(3))
def test_the_divergence_of_rays_is_that_of_voxels_by_their_light(geometry_of, backend, axis):
    """Exactly, where rays cross whole edges; of the reference, too."""
    grid = VoxelGrid((-2, -2.4, -1.2, 2, 2.4, 2), (10, 12, 8))
    geometry = geometry_of(300, batch=2, grid=grid)
    directions = torch.zeros(300, 3)
    directions[:, axis] = torch.tensor([1.0, -2.0]).repeat(150)
    origins = geometry.rays.origins.clone()
    origins[:, axis] = -3 * directions[:, axis]
    geometry = replace(
        geometry, rays=replace(geometry.rays, origins=origins, directions=directions)
    )
    generator = torch.Generator().manual_seed(0)
    free = [torch.randn(geometry.num_voxels, 4, generator=generator).double() for _ in range(2)]
    teacher, student = (density_from_logits(x, 0.4) for x in free)
    for name in (backend, 'reference'):
        entered, _ = voxel_light(teacher, geometry, backend=name, **EXACT)
        p, q = (x.softmax(-1)[:, -1] for x in free)
        divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
        rays = ray_kl(teacher, student, geometry, backend=name, **EXACT)
        torch.testing.assert_close((entered * divergence).sum(), rays.sum(), rtol=1e-6, atol=0)
    assert float(entered.max()) > 2


def test_all_light_ends_or_leaves(geometry_of, volume_of, backend):
    geometry = geometry_of(200)
    density, values = volume_of(geometry)
    _, weights, no_hit = render(
        density, torch.ones_like(values), geometry, backend=backend, **EXACT
    )
    entered, ended = voxel_light(density, geometry, backend=backend, **EXACT)
    torch.testing.assert_close(ended.sum() + no_hit.sum(), torch.tensor(200.0).double())
    assert bool((ended <= entered).all())
    assert not bool(ended[density == 0].any())


def test_light_takes_no_gradient_and_no_rays_give_none(geometry_of, volume_of, backend):
    geometry = geometry_of(0)
    density, _ = volume_of(geometry)
    light = voxel_light(density.requires_grad_(), geometry, backend=backend)
    assert not any(x.requires_grad or bool(x.any()) for x in light)
    with pytest.raises(ValueError, match='density takes 960 voxels'):
        voxel_light(density[1:], geometry, backend=backend)


def test_a_stopped_ray_lights_nothing_more(geometry_of, volume_of, backend):
    if backend == 'torch':
        pytest.skip('walks every ray to its end')
    geometry = geometry_of(100)
    density, _ = volume_of(geometry)
    full, stopped = (
        voxel_light(density * 4, geometry, backend=backend, min_transmittance=m)[0]
        for m in (0.0, 1e-2)
    )
    dark = full - stopped
    assert float(dark.min()) >= 0
    assert 0 < float(dark.sum()) < 0.02 * float(full.sum())
