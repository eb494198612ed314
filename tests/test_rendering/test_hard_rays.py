"""Every backend where numbers are extreme, rays graze, or nothing is there."""

from dataclasses import replace

import pytest
import torch

from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.rendering import ray_kl, render
from tests.test_rendering.rendered import EXACT, everything


def test_empty_space_is_never_hit(geometry_of, volume_of, backend):
    geometry = geometry_of()
    _, values = volume_of(geometry)
    depth, rendered, no_hit = render(
        torch.zeros_like(values[:, 0]), values, geometry, backend=backend
    )
    assert bool((no_hit == 1).all())
    assert not bool(depth.any()) and not bool(rendered.any())


def test_without_rays_the_graph_is_connected_and_finite(geometry_of, volume_of, backend):
    geometry = geometry_of()
    geometry = replace(geometry, rays=geometry.rays.select(torch.zeros(0).long()))
    density, values = volume_of(geometry)
    density.requires_grad_()
    values.requires_grad_()
    outputs = render(density, values, geometry, backend=backend)
    kl = ray_kl(density, density, geometry, backend=backend)
    assert [len(x) for x in (*outputs, kl)] == [0] * 4
    (sum(x.sum() for x in outputs) + kl.sum()).backward()
    assert not bool(density.grad.any()) and not bool(values.grad.any())


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_divergence_of_extreme_volumes_is_finite(geometry_of, backend, dtype):
    geometry = geometry_of()
    for teacher, student in [(0.0, 1e4), (1e4, 0.0), (0.0, 0.0), (1e4, 1e4)]:
        teacher, student = (
            torch.full((geometry.num_voxels,), x, dtype=dtype) for x in (teacher, student)
        )
        student.requires_grad_()
        loss = ray_kl(teacher, student, geometry, backend=backend)
        loss.sum().backward()
        assert bool(loss.isfinite().all())
        assert float(loss.detach().min()) > -1e-5
        assert bool(student.grad.isfinite().all())


def test_rays_on_planes_edges_and_corners_are_inside_the_lower_side_only(
    geometry_of, volume_of, backend
):
    """Cells are half open: a ray in the grid's upper face misses it."""
    grid = VoxelGrid((-1, -1, -1, 1, 1, 1), (4, 4, 4))
    generator = torch.Generator().manual_seed(0)
    origins = torch.randint(-2, 3, (1500, 3), generator=generator) / 2.0
    directions = torch.randint(-1, 2, (1500, 3), generator=generator).float()
    directions[(directions == 0).all(-1), 0] = 1
    geometry = geometry_of(1500)
    geometry = replace(
        geometry, rays=replace(geometry.rays, origins=origins, directions=directions), grid=grid
    )
    args = geometry, *volume_of(geometry), volume_of(geometry, seed=1)[0]
    got, want = (
        everything(*args, backend=b, **extra) for b, extra in ((backend, EXACT), ('reference', {}))
    )
    for a, b in zip(got[:4], want[:4]):  # a ray between voxels takes either
        assert float(((a - b).abs() > 1e-9).double().mean()) < 0.02
    assert torch.equal(got[2] == 1, want[2] == 1)


@pytest.mark.parametrize(
    'grid, origins, directions',
    [
        # through inner edges, which rounding puts 1e-15 before the outer face
        (
            VoxelGrid((-40.0, -40.0, -1.0, 40.0, 40.0, 5.4), (200, 200, 16)),
            [[0.0, -40 + 0.4 * k, 0.2 * k - 0.6] for k in range(1, 20)],
            [[40.0, 0.4 * j, 0.0] for j in range(1, 20)],
        ),
        (
            VoxelGrid((-40.0, -40.0, -1.0, 40.0, 40.0, 5.4), (200, 200, 16)),
            [[0.0, -7.2, 1.3]] * 19,
            [[1.0, -0.12, 0.05 * j] for j in range(19)],
        ),
        # out of the face 5e-10 m away
        (
            VoxelGrid((-(2.0**-30), 0.0, 0.0, 1.0, 1.0, 1.0), (2, 2, 2)),
            [[-(2.0**-31), 0.5, 0.5]],
            [[-1.0, 0.0, 0.0]],
        ),
    ],
)
def test_the_last_stretch_of_a_ray_ends_it_however_short(
    geometry_of, volume_of, backend, grid, origins, directions
):
    """A walk that waits for it to pass would never end."""
    geometry = geometry_of(len(origins))
    geometry = replace(
        geometry,
        rays=replace(
            geometry.rays, origins=torch.tensor(origins), directions=torch.tensor(directions)
        ),
        grid=grid,
    )
    density = torch.full((grid.num_voxels * geometry.num_volumes,), 1e-3)
    values = torch.ones(len(density), 3)
    got, want = (
        render(density, values, geometry, backend=b, **extra)
        for b, extra in ((backend, EXACT), ('reference', {}))
    )
    for a, b in zip(got, want):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, check_dtype=False)


@pytest.mark.parametrize('density', [float('inf'), 1e12])
def test_infinite_density_is_a_wall_and_leaves_other_rays_alone(
    geometry_of, volume_of, backend, density
):
    geometry = geometry_of(60)
    plain, values = volume_of(geometry)
    plain += 0.1
    wall = plain.clone()
    wall[geometry.crossings.voxel[0]] = density
    outputs = [render(x, values, geometry, backend=backend, **EXACT) for x in (plain, wall)]
    assert all(bool(x.isfinite().all()) for x in outputs[1])
    touched = torch.zeros(60, dtype=torch.bool)
    touched[geometry.crossings.ray[geometry.crossings.voxel == geometry.crossings.voxel[0]]] = True
    for a, b in zip(*outputs):
        torch.testing.assert_close(a[~touched], b[~touched])
    assert float(outputs[1][2][touched].max()) == 0


@pytest.mark.parametrize('wall', [1e3, float('inf')])
def test_light_in_front_of_a_wall_is_not_rounded_away(geometry_of, volume_of, backend, wall):
    """In float32: the wall's optical depth is no part of its entry."""
    geometry = geometry_of(60)
    _, values = volume_of(geometry, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    density, student = torch.tensor([0.0, 0.3, 0.5, wall])[
        torch.randint(4, (2, geometry.num_voxels), generator=generator)
    ]
    args = geometry, density, values, student
    for got, want in zip(
        everything(*args, backend=backend, **EXACT), everything(*args, backend='reference')
    ):
        error = (got - want).abs().max() / want.abs().max()
        assert float(error) < 1e-5


def test_a_student_sure_of_free_space_still_learns_of_a_wall(geometry_of, backend):
    geometry = geometry_of()
    student = torch.full((geometry.num_voxels,), 1e-9, dtype=torch.float64).requires_grad_()
    loss = ray_kl(torch.full_like(student, 50.0), student, geometry, backend=backend)
    loss.sum().backward()
    first = geometry.crossings.voxel[
        geometry.crossings.offsets[:-1][geometry.crossings.offsets.diff() > 0]
    ]
    assert float(student.grad[first].max()) < -1e3


def test_not_a_number_is_not_swallowed(geometry_of, volume_of, backend):
    geometry = geometry_of()
    density, values = volume_of(geometry)
    density[:] = float('nan')
    depth, _, no_hit = render(density, values, geometry, backend=backend)
    crossed = geometry.crossings.offsets.diff() > 0
    assert bool(depth[crossed].isnan().all())
    assert bool(no_hit[crossed].isnan().all())


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(density=torch.zeros(3)), 'density takes 960 voxels'),
        (dict(values=torch.zeros(960)), 'values takes shape'),
        (dict(density=torch.zeros(960).half()), 'float32 or float64'),
        (dict(values=torch.zeros(960, 2).double()), 'values takes shape'),
    ],
)
def test_volumes_that_do_not_fit_are_named(geometry_of, change, message):
    volume = dict(density=torch.zeros(960), values=torch.zeros(960, 2))
    volume.update(change)
    with pytest.raises(ValueError, match=message):
        render(geometry=geometry_of(), **volume)
