"""What every backend promises, and that all of them are the reference."""
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radocc_plugin.geometry import Cameras, VoxelGrid
from radocc_plugin.rendering import (VolumeRenderer, density_from_logits,
                                     ray_kl, render, render_logits,
                                     render_logits_pair)
from radocc_plugin.rendering.backends import cpp
from tests.test_rendering.rendered import EXACT, everything

@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-9),
                                              (torch.float32, 2e-4)])
@pytest.mark.parametrize('channels', [3, 17, 18])
def test_equals_the_reference(geometry_of, volume_of, backend, dtype,
                              tolerance, channels):
    geometry = geometry_of(120, batch=2)
    density, values = volume_of(geometry, channels, dtype=dtype)
    student, _ = volume_of(geometry, seed=1, dtype=dtype)
    args = geometry, density, values, student
    for got, want in zip(
            everything(*args, backend=backend, **EXACT),
            everything(*args, backend='reference')):
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    edge=st.sampled_from([0.1, 0.4, 3.]),
    fog=st.sampled_from([0., 1e-4, 1., 100.]))
def test_equals_the_reference_for_any_rig_grid_and_fog(
        geometry_of, volume_of, backend, seed, shape, edge, fog):
    low = (-0.7, -1., -0.3)
    grid = VoxelGrid(
        (*low, *(a + n * edge for a, n in zip(low, shape))), shape)
    geometry = geometry_of(20, seed, grid=grid)
    density, values = volume_of(geometry, seed=seed)
    student, _ = volume_of(geometry, seed=seed + 1)
    args = geometry, density * fog, values, student + 0.01
    for got, want in zip(
            everything(*args, backend=backend, **EXACT),
            everything(*args, backend='reference')):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_gradients_pass_gradcheck(geometry_of, volume_of, backend):
    grid = VoxelGrid((-1, -1, -1, 1, 1.4, 1), (5, 6, 5))
    geometry = geometry_of(12, 1, grid=grid)
    density, values = volume_of(geometry, 2)
    leaves = [(density + 0.05).requires_grad_(), values.requires_grad_()]
    assert torch.autograd.gradcheck(
        lambda d, v: render(d, v, geometry, backend=backend, **EXACT), leaves)
    student = (volume_of(geometry, 2, 1)[0] + 0.05).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s: ray_kl(density, s, geometry, backend=backend, **EXACT),
        student)
    teacher = values.flip(0)
    assert torch.autograd.gradcheck(
        lambda x: [
            *render_logits_pair(
                teacher, x, geometry, backend=backend, **EXACT)[1],
            render_logits_pair(
                teacher, x, geometry, backend=backend, **EXACT)[2]
        ], values.clone().requires_grad_())


@pytest.mark.parametrize('mode', ['free_probability', 'softplus'])
def test_logits_render_as_their_density_and_values(geometry_of, backend,
                                                   mode):
    """The fused function and its gradient, with the density as an output."""
    geometry = geometry_of(60)
    logits = torch.randn(
        geometry.num_voxels, 5, dtype=torch.float64).requires_grad_()

    def parts(logits):
        density = density_from_logits(logits, 0.4, 2, mode)
        depth, rendered, no_hit = render(
            density, logits, geometry, backend=backend, **EXACT)
        return density, depth, rendered[:, [0, 1, 3, 4]], no_hit

    fused = render_logits(
        logits,
        geometry,
        density=mode,
        free_index=2,
        backend=backend,
        **EXACT)
    gradients = []
    for outputs in (fused, parts(logits)):
        loss = sum((i + 1) * (x * x).sum() for i, x in enumerate(outputs))
        gradients.append(torch.autograd.grad(loss, logits)[0])
    for got, want in zip(fused, parts(logits)):
        torch.testing.assert_close(got, want)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('min_transmittance', [0., 1e-2])
def test_a_pair_is_two_renders_and_their_divergence(geometry_of, backend,
                                                    min_transmittance):
    """Also where the student is opaque before the teacher, or after it."""
    geometry = geometry_of(100)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(
        2, geometry.num_voxels, 4, dtype=torch.float64, generator=generator)
    logits[:, ::7, -1] -= 20
    options = dict(
        backend=backend,
        min_transmittance=min_transmittance,
        density='softplus')
    student = logits[1].requires_grad_()
    together = render_logits_pair(logits[0], student, geometry, **options)
    alone = [
        render_logits(x, geometry, **options) for x in (logits[0], student)
    ]
    options.pop('density')
    divergence = ray_kl(alone[0][0], alone[1][0], geometry, **options)
    gradients = []
    for own, kl in ((together[1], together[2]), (alone[1], divergence)):
        loss = kl.square().sum() + sum(
            (i + 1) * (x * x).sum() for i, x in enumerate(own))
        gradients.append(torch.autograd.grad(loss, student)[0])
    for got, want in zip((*together[0], *together[1], together[2]),
                         (*alone[0], *alone[1], divergence)):
        torch.testing.assert_close(got, want)
    torch.testing.assert_close(*gradients)
    assert not any(x.requires_grad for x in together[0])


def test_a_pair_of_unequal_volumes_is_named(geometry_of, backend):
    geometry = geometry_of()
    student = torch.zeros(geometry.num_voxels, 4)
    with pytest.raises(ValueError, match='teacher_logits and student_logits'):
        render_logits_pair(student[:, 1:], student, geometry, backend=backend)


def test_depth_is_within_a_tenth_of_a_millimetre_of_float64(
        geometry_of, volume_of, backend):
    grid = VoxelGrid((-40, -40, -1, 40, 40, 5.4), (200, 200, 16))
    geometry = geometry_of(300, grid=grid)
    density, values = volume_of(geometry, 1)
    density *= 0.03
    exact, _, _ = render(density, values, geometry, backend='reference')
    depth, _, _ = render(
        density.float(), values.float(), geometry, backend=backend, **EXACT)
    assert float(exact.max()) > 20
    assert float((depth - exact).abs().max()) < 1e-4


def test_stopping_early_changes_no_more_than_what_is_left(
        geometry_of, volume_of):
    if cpp.why_not_compiled():
        pytest.skip(cpp.why_not_compiled())
    geometry = geometry_of(200)
    density, values = volume_of(geometry)
    full, stopped = (
        render(
            density * 4, values, geometry, backend='cpp', min_transmittance=m)
        for m in (0., 1e-2))
    end = geometry.segments.far.max()
    assert 0 < float((full[0] - stopped[0]).abs().max()) < 1e-2 * float(end)
    left = stopped[2] - full[2]
    assert float(left.min()) >= 0 and float(left.max()) < 1e-2


def test_dense_nearest_samples_converge_to_the_exact_depth(
        geometry_of, volume_of, backend):
    """The error of S midpoint samples falls as 1 / S."""
    geometry = geometry_of(30)
    density, values = volume_of(geometry, 1)
    exact, _, no_hit = render(
        density, values, geometry, backend=backend, **EXACT)
    origins = geometry.rays.origins.double()
    directions = geometry.rays.directions.double()
    # Behind the last voxel there is nothing to sample.
    end = 1.01 * float(geometry.segments.far.max())
    errors = []
    for number in (200, 3200):
        step = end / number
        t = (torch.arange(number, dtype=torch.float64) + 0.5) * step
        cell, inside = geometry.grid.index(
            origins[:, None] + directions[:, None] * t[:, None])
        sigma = density[geometry.grid.ravel(cell).clamp(
            0, geometry.num_voxels - 1)] * inside
        tau = sigma * step * directions.norm(dim=-1)[:, None]
        left = (-tau).exp().cumprod(1)
        entry = torch.cat((torch.ones(30, 1), left[:, :-1]), 1)
        errors.append(float(((entry - left) * t).sum(1).sub(exact).abs().mean(
        )))
        torch.testing.assert_close(left[:, -1], no_hit, rtol=0, atol=0.1)
    assert errors[1] < errors[0] / 8 and errors[1] < 2e-3


def test_moving_the_world_with_the_rays_changes_nothing(
        geometry_of, volume_of, backend):
    """A quarter turn about z, a mirror and a shift map voxels to voxels."""
    geometry = geometry_of(50, grid=VoxelGrid((-2, -2, -1, 2, 2, 2),
                                              (10, 10, 6)))
    density, values = volume_of(geometry)
    plain = render(density, values, geometry, backend=backend, **EXACT)
    x, y, z = geometry.rays.origins.unbind(-1)
    dx, dy, dz = geometry.rays.directions.unbind(-1)
    shift = torch.tensor([5., -3, 0.5])
    moved = replace(
        geometry,
        rays=replace(
            geometry.rays,
            origins=torch.stack((-y, x, z), -1) + shift,
            directions=torch.stack((-dy, dx, dz), -1)),
        grid=VoxelGrid((3, -5, -0.5, 7, -1, 2.5), (10, 10, 6)))

    def turn(flat):  # (x, y) -> (-y, x)
        return flat.view(10, 10, 6, -1).transpose(0, 1).flip(0).reshape(
            flat.shape)

    for got, want in zip(
            render(
                turn(density), turn(values), moved, backend=backend, **EXACT),
            plain):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_empty_space_is_never_hit(geometry_of, volume_of, backend):
    geometry = geometry_of()
    _, values = volume_of(geometry)
    depth, rendered, no_hit = render(
        torch.zeros_like(values[:, 0]), values, geometry, backend=backend)
    assert bool((no_hit == 1).all())
    assert not bool(depth.any()) and not bool(rendered.any())


def test_the_values_one_are_the_opacity(geometry_of, volume_of, backend):
    """Weights and no-hit sum to 1."""
    geometry = geometry_of(200)
    density, _ = volume_of(geometry)
    _, opacity, no_hit = render(
        density, torch.ones_like(density)[:, None], geometry, backend=backend)
    torch.testing.assert_close(opacity[:, 0] + no_hit,
                               torch.ones_like(no_hit))
    assert 0.1 < float(no_hit.mean()) < 0.9


def test_without_rays_the_graph_is_connected_and_finite(
        geometry_of, volume_of, backend):
    geometry = geometry_of()
    geometry = replace(
        geometry, rays=geometry.rays.select(torch.zeros(0).long()))
    density, values = volume_of(geometry)
    density.requires_grad_()
    values.requires_grad_()
    outputs = render(density, values, geometry, backend=backend)
    kl = ray_kl(density, density, geometry, backend=backend)
    assert [len(x) for x in (*outputs, kl)] == [0] * 4
    (sum(x.sum() for x in outputs) + kl.sum()).backward()
    assert not bool(density.grad.any()) and not bool(values.grad.any())


def test_equal_volumes_have_no_divergence(geometry_of, volume_of, backend):
    geometry = geometry_of()
    density = volume_of(geometry)[0] + 0.05
    teacher = density.clone().requires_grad_()
    student = density.clone().requires_grad_()
    divergence = ray_kl(teacher, student, geometry, backend=backend)
    divergence.sum().backward()
    torch.testing.assert_close(divergence, torch.zeros_like(divergence))
    assert float(student.grad.abs().max()) < 1e-6
    assert teacher.grad is None


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_divergence_of_extreme_volumes_is_finite(geometry_of, backend, dtype):
    geometry = geometry_of()
    for teacher, student in [(0., 1e4), (1e4, 0.), (0., 0.), (1e4, 1e4)]:
        teacher, student = (
            torch.full((geometry.num_voxels, ), x, dtype=dtype)
            for x in (teacher, student))
        student.requires_grad_()
        loss = ray_kl(teacher, student, geometry, backend=backend)
        loss.sum().backward()
        assert bool(loss.isfinite().all())
        assert float(loss.detach().min()) > -1e-5
        assert bool(student.grad.isfinite().all())


def test_cpp_gradients_are_the_same_for_any_number_of_threads(
        geometry_of, volume_of):
    if cpp.why_not_compiled():
        pytest.skip(cpp.why_not_compiled())
    geometry = geometry_of(700)
    density, values = volume_of(geometry, 18, dtype=torch.float32)
    student, _ = volume_of(geometry, seed=1, dtype=torch.float32)
    threads = torch.get_num_threads()
    results = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        results.append(
            everything(geometry, density, values, student, backend='cpp'))
    torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_gradients_of_an_early_stop_are_those_of_what_was_rendered(
        geometry_of, volume_of):
    if cpp.why_not_compiled():
        pytest.skip(cpp.why_not_compiled())
    geometry = geometry_of(12, 1)
    density, values = volume_of(geometry, 2)
    leaves = [(density + 0.05).requires_grad_(), values.requires_grad_()]
    assert torch.autograd.gradcheck(
        lambda d, v: render(
            d, v, geometry, backend='cpp', min_transmittance=0.1), leaves)


def test_rays_on_planes_edges_and_corners_are_inside_the_lower_side_only(
        geometry_of, volume_of, backend):
    """Cells are half open: a ray in the grid's upper face misses it."""
    grid = VoxelGrid((-1, -1, -1, 1, 1, 1), (4, 4, 4))
    generator = torch.Generator().manual_seed(0)
    origins = torch.randint(-2, 3, (1500, 3), generator=generator) / 2.
    directions = torch.randint(-1, 2, (1500, 3), generator=generator).float()
    directions[(directions == 0).all(-1), 0] = 1
    geometry = geometry_of(1500)
    geometry = replace(
        geometry,
        rays=replace(geometry.rays, origins=origins, directions=directions),
        grid=grid)
    args = geometry, *volume_of(geometry), volume_of(geometry, seed=1)[0]
    got, want = (everything(*args, backend=b, **extra)
                 for b, extra in ((backend, EXACT), ('reference', {})))
    for a, b in zip(got[:4], want[:4]):  # a ray between voxels takes either
        assert float(((a - b).abs() > 1e-9).double().mean()) < 0.02
    assert torch.equal(got[2] == 1, want[2] == 1)


@pytest.mark.parametrize('grid, origins, directions', [
    # through inner edges, which rounding puts 1e-15 before the outer face
    (VoxelGrid((-40., -40., -1., 40., 40., 5.4), (200, 200, 16)),
     [[0., -40 + 0.4 * k, 0.2 * k - 0.6] for k in range(1, 20)],
     [[40., 0.4 * j, 0.] for j in range(1, 20)]),
    (VoxelGrid((-40., -40., -1., 40., 40., 5.4), (200, 200, 16)),
     [[0., -7.2, 1.3]] * 19, [[1., -0.12, 0.05 * j] for j in range(19)]),
    # out of the face 5e-10 m away
    (VoxelGrid((-2.**-30, 0., 0., 1., 1., 1.), (2, 2, 2)),
     [[-2.**-31, .5, .5]], [[-1., 0., 0.]]),
])
def test_the_last_stretch_of_a_ray_ends_it_however_short(
        geometry_of, volume_of, backend, grid, origins, directions):
    """A walk that waits for it to pass would never end."""
    geometry = geometry_of(len(origins))
    geometry = replace(
        geometry,
        rays=replace(
            geometry.rays,
            origins=torch.tensor(origins),
            directions=torch.tensor(directions)),
        grid=grid)
    density = torch.full((grid.num_voxels * geometry.num_volumes, ), 1e-3)
    values = torch.ones(len(density), 3)
    got, want = (render(density, values, geometry, backend=b, **extra)
                 for b, extra in ((backend, EXACT), ('reference', {})))
    for a, b in zip(got, want):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4,
                                   check_dtype=False)


@pytest.mark.parametrize('density', [float('inf'), 1e12])
def test_infinite_density_is_a_wall_and_leaves_other_rays_alone(
        geometry_of, volume_of, backend, density):
    geometry = geometry_of(60)
    plain, values = volume_of(geometry)
    plain += 0.1
    wall = plain.clone()
    wall[geometry.segments.voxel[0]] = density
    outputs = [
        render(x, values, geometry, backend=backend, **EXACT)
        for x in (plain, wall)
    ]
    assert all(bool(x.isfinite().all()) for x in outputs[1])
    touched = torch.zeros(60, dtype=torch.bool)
    touched[geometry.segments.ray[geometry.segments.voxel ==
                                  geometry.segments.voxel[0]]] = True
    for a, b in zip(*outputs):
        torch.testing.assert_close(a[~touched], b[~touched])
    assert float(outputs[1][2][touched].max()) == 0


def test_a_student_sure_of_free_space_still_learns_of_a_wall(
        geometry_of, backend):
    geometry = geometry_of()
    student = torch.full((geometry.num_voxels, ), 1e-9,
                         dtype=torch.float64).requires_grad_()
    loss = ray_kl(torch.full_like(student, 50.), student, geometry,
                  backend=backend)
    loss.sum().backward()
    first = geometry.segments.voxel[geometry.segments.offsets[:-1][
        geometry.segments.offsets.diff() > 0]]
    assert float(student.grad[first].max()) < -1e3


def test_not_a_number_is_not_swallowed(geometry_of, volume_of, backend):
    geometry = geometry_of()
    density, values = volume_of(geometry)
    density[:] = float('nan')
    depth, _, no_hit = render(density, values, geometry, backend=backend)
    crossed = geometry.segments.offsets.diff() > 0
    assert bool(depth[crossed].isnan().all())
    assert bool(no_hit[crossed].isnan().all())


@pytest.mark.parametrize('sampling', [None, dict(num_samples=30, step=0.2)])
def test_memory_stays_flat_over_200_steps_with_changing_rays(
        backend, sampling):
    """Through the registered module, rays drawn anew in each step."""
    renderer = VolumeRenderer(
        (-4, -4, -1, 4, 4, 2.2), (20, 30),
        max_rays=300,
        density='softplus',
        sampling=sampling,
        backend=backend)
    cam2ego = torch.tensor([[0., 0, 1, 0], [-1, 0, 0, 0.05],
                            [0, -1, 0, 0.7], [0, 0, 0, 1]])
    cam2img = torch.tensor([[20., 0, 16], [0, 20, 9], [0, 0, 1]])
    cameras = Cameras(cam2img[None, None], cam2ego[None, None],
                      torch.eye(4)[None], (18, 32))
    logits = torch.randn(1, 10, 10, 4, 18, requires_grad=True)
    with torch.no_grad():
        target = torch.randn_like(logits)
    generator = torch.Generator().manual_seed(0)
    resident = []
    for step in range(200):
        geometry = renderer.trace(cameras, (10, 10, 4), generator)
        teacher, student = renderer.render_pair((target, None),
                                                (logits, None), geometry)
        loss = student.depth.sum() + student.ray_kl(teacher).sum()
        (loss + student.semantics.square().sum()).backward()
        logits.grad = None
        status = Path('/proc/self/status').read_text()
        resident.append(int(status.split('VmRSS:')[1].split()[0]))
    assert resident[-1] - resident[40] < 6 * 1024  # KB


@pytest.mark.parametrize('change, message', [
    (dict(density=torch.zeros(3)), 'density takes 960 voxels'),
    (dict(values=torch.zeros(960)), 'values takes shape'),
    (dict(density=torch.zeros(960).half()), 'float32 or float64'),
    (dict(values=torch.zeros(960, 2).double()), 'values takes shape'),
])
def test_volumes_that_do_not_fit_are_named(geometry_of, change, message):
    volume = dict(density=torch.zeros(960), values=torch.zeros(960, 2))
    volume.update(change)
    with pytest.raises(ValueError, match=message):
        render(geometry=geometry_of(), **volume)
