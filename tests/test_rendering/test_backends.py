"""What every backend promises, and that all of them are the reference."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radocc_plugin.geometry import Cameras, VoxelGrid
from radocc_plugin.rendering import (
    VolumeRenderer,
    density_from_logits,
    ray_kl,
    render,
    render_logits,
    render_logits_pair,
)
from radocc_plugin.rendering.backends import cpp, packed
from tests.test_rendering.rendered import EXACT, everything


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-9), (torch.float32, 2e-4)])
@pytest.mark.parametrize('channels', [3, 17, 18])
def test_equals_the_reference(geometry_of, volume_of, backend, dtype, tolerance, channels):
    geometry = geometry_of(120, batch=2)
    density, values = volume_of(geometry, channels, dtype=dtype)
    student, _ = volume_of(geometry, seed=1, dtype=dtype)
    args = geometry, density, values, student
    for got, want in zip(
        everything(*args, backend=backend, **EXACT), everything(*args, backend='reference')
    ):
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    edge=st.sampled_from([0.1, 0.4, 3.0]),
    fog=st.sampled_from([0.0, 1e-4, 1.0, 100.0]),
)
def test_equals_the_reference_for_any_rig_grid_and_fog(
    geometry_of, volume_of, backend, seed, shape, edge, fog
):
    low = (-0.7, -1.0, -0.3)
    grid = VoxelGrid((*low, *(a + n * edge for a, n in zip(low, shape))), shape)
    geometry = geometry_of(20, seed, grid=grid)
    density, values = volume_of(geometry, seed=seed)
    student, _ = volume_of(geometry, seed=seed + 1)
    args = geometry, density * fog, values, student + 0.01
    for got, want in zip(
        everything(*args, backend=backend, **EXACT), everything(*args, backend='reference')
    ):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_gradients_pass_gradcheck(geometry_of, volume_of, backend):
    grid = VoxelGrid((-1, -1, -1, 1, 1.4, 1), (5, 6, 5))
    geometry = geometry_of(12, 1, grid=grid)
    density, values = volume_of(geometry, 2)
    leaves = [(density + 0.05).requires_grad_(), values.requires_grad_()]
    assert torch.autograd.gradcheck(
        lambda d, v: render(d, v, geometry, backend=backend, **EXACT), leaves
    )
    student = (volume_of(geometry, 2, 1)[0] + 0.05).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s: ray_kl(density, s, geometry, backend=backend, **EXACT), student
    )
    teacher = values.flip(0)
    assert torch.autograd.gradcheck(
        lambda x: [
            *render_logits_pair(teacher, x, geometry, backend=backend, **EXACT)[1],
            render_logits_pair(teacher, x, geometry, backend=backend, **EXACT)[2],
        ],
        values.clone().requires_grad_(),
    )


@pytest.mark.parametrize('output', range(5))
def test_each_output_alone_has_its_gradient(geometry_of, volume_of, backend, output):
    geometry = geometry_of()
    _, values = volume_of(geometry)

    def gradient(**options):
        logits = values.clone().requires_grad_()
        _, own, divergence = render_logits_pair(values.flip(0), logits, geometry, **options)
        alone = render_logits(logits, geometry, **options)
        chosen = [(*own, divergence)[output], *alone[output : output + 1]]
        return torch.autograd.grad(sum(x.double().square().sum() for x in chosen), logits)[0]

    torch.testing.assert_close(
        gradient(backend=backend, **EXACT), gradient(backend='reference'), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize('mode', ['free_probability', 'softplus'])
def test_logits_render_as_their_density_and_values(geometry_of, backend, mode):
    """The fused function and its gradient, with the density as an output."""
    geometry = geometry_of(60)
    logits = torch.randn(geometry.num_voxels, 5, dtype=torch.float64).requires_grad_()

    def parts(logits):
        density = density_from_logits(logits, 0.4, 2, mode)
        depth, rendered, no_hit = render(density, logits, geometry, backend=backend, **EXACT)
        return density, depth, rendered[:, [0, 1, 3, 4]], no_hit

    fused = render_logits(logits, geometry, density=mode, free_index=2, backend=backend, **EXACT)
    gradients = []
    for outputs in (fused, parts(logits)):
        loss = sum((i + 1) * (x * x).sum() for i, x in enumerate(outputs))
        gradients.append(torch.autograd.grad(loss, logits)[0])
    for got, want in zip(fused, parts(logits)):
        torch.testing.assert_close(got, want)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('number, chunk', [(100, packed.CPU_CHUNK), (100, 50), (0, 50)])
@pytest.mark.parametrize('min_transmittance', [0.0, 1e-2])
def test_a_pair_is_two_renders_and_their_divergence(
    geometry_of, backend, min_transmittance, number, chunk, monkeypatch
):
    """Also where the student is opaque before the teacher, or after it."""
    monkeypatch.setattr(packed, 'CPU_CHUNK', chunk)
    geometry = geometry_of(number)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, geometry.num_voxels, 4, dtype=torch.float64, generator=generator)
    logits[:, ::7, -1] -= 20
    options = dict(backend=backend, min_transmittance=min_transmittance, density='softplus')
    student = logits[1].requires_grad_()
    together = render_logits_pair(logits[0], student, geometry, **options)
    alone = [render_logits(x, geometry, **options) for x in (logits[0], student)]
    options.pop('density')
    divergence = ray_kl(alone[0][0], alone[1][0], geometry, **options)
    gradients = []
    for own, kl in ((together[1], together[2]), (alone[1], divergence)):
        loss = kl.square().sum() + sum((i + 1) * (x * x).sum() for i, x in enumerate(own))
        gradients.append(torch.autograd.grad(loss, student)[0])
    for got, want in zip(
        (*together[0], *together[1], together[2]), (*alone[0], *alone[1], divergence)
    ):
        torch.testing.assert_close(got, want)
    torch.testing.assert_close(*gradients)
    assert not any(x.requires_grad for x in together[0])


def test_a_pair_of_unequal_volumes_is_named(geometry_of, backend):
    geometry = geometry_of()
    student = torch.zeros(geometry.num_voxels, 4)
    with pytest.raises(ValueError, match='teacher_logits and student_logits'):
        render_logits_pair(student[:, 1:], student, geometry, backend=backend)


def test_depth_is_within_a_tenth_of_a_millimetre_of_float64(geometry_of, volume_of, backend):
    grid = VoxelGrid((-40, -40, -1, 40, 40, 5.4), (200, 200, 16))
    geometry = geometry_of(300, grid=grid)
    density, values = volume_of(geometry, 1)
    density *= 0.03
    exact, _, _ = render(density, values, geometry, backend='reference')
    depth, _, _ = render(density.float(), values.float(), geometry, backend=backend, **EXACT)
    assert float(exact.max()) > 20
    assert float((depth - exact).abs().max()) < 1e-4


def test_stopping_early_changes_no_more_than_what_is_left(geometry_of, volume_of):
    if cpp.why_not_compiled():
        pytest.skip(cpp.why_not_compiled())
    geometry = geometry_of(200)
    density, values = volume_of(geometry)
    full, stopped = (
        render(density * 4, values, geometry, backend='cpp', min_transmittance=m)
        for m in (0.0, 1e-2)
    )
    end = geometry.crossings.far.max()
    assert 0 < float((full[0] - stopped[0]).abs().max()) < 1e-2 * float(end)
    left = stopped[2] - full[2]
    assert float(left.min()) >= 0 and float(left.max()) < 1e-2


def test_dense_nearest_samples_converge_to_the_exact_depth(geometry_of, volume_of, backend):
    """The error of S midpoint samples falls as 1 / S."""
    geometry = geometry_of(30)
    density, values = volume_of(geometry, 1)
    exact, _, no_hit = render(density, values, geometry, backend=backend, **EXACT)
    origins = geometry.rays.origins.double()
    directions = geometry.rays.directions.double()
    # Behind the last voxel there is nothing to sample.
    end = 1.01 * float(geometry.crossings.far.max())
    errors = []
    for number in (200, 3200):
        step = end / number
        t = (torch.arange(number, dtype=torch.float64) + 0.5) * step
        cell, inside = geometry.grid.index(origins[:, None] + directions[:, None] * t[:, None])
        sigma = density[geometry.grid.ravel(cell).clamp(0, geometry.num_voxels - 1)] * inside
        tau = sigma * step * directions.norm(dim=-1)[:, None]
        left = (-tau).exp().cumprod(1)
        entry = torch.cat((torch.ones(30, 1), left[:, :-1]), 1)
        errors.append(float(((entry - left) * t).sum(1).sub(exact).abs().mean()))
        torch.testing.assert_close(left[:, -1], no_hit, rtol=0, atol=0.1)
    assert errors[1] < errors[0] / 8 and errors[1] < 2e-3


def test_moving_the_world_with_the_rays_changes_nothing(geometry_of, volume_of, backend):
    """A quarter turn about z, a mirror and a shift map voxels to voxels."""
    geometry = geometry_of(50, grid=VoxelGrid((-2, -2, -1, 2, 2, 2), (10, 10, 6)))
    density, values = volume_of(geometry)
    plain = render(density, values, geometry, backend=backend, **EXACT)
    x, y, z = geometry.rays.origins.unbind(-1)
    dx, dy, dz = geometry.rays.directions.unbind(-1)
    shift = torch.tensor([5.0, -3, 0.5])
    moved = replace(
        geometry,
        rays=replace(
            geometry.rays,
            origins=torch.stack((-y, x, z), -1) + shift,
            directions=torch.stack((-dy, dx, dz), -1),
        ),
        grid=VoxelGrid((3, -5, -0.5, 7, -1, 2.5), (10, 10, 6)),
    )

    def turn(flat):  # (x, y) -> (-y, x)
        return flat.view(10, 10, 6, -1).transpose(0, 1).flip(0).reshape(flat.shape)

    for got, want in zip(
        render(turn(density), turn(values), moved, backend=backend, **EXACT), plain
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_the_values_one_are_the_opacity(geometry_of, volume_of, backend):
    """Weights and no-hit sum to 1."""
    geometry = geometry_of(200)
    density, _ = volume_of(geometry)
    _, opacity, no_hit = render(
        density, torch.ones_like(density)[:, None], geometry, backend=backend
    )
    torch.testing.assert_close(opacity[:, 0] + no_hit, torch.ones_like(no_hit))
    assert 0.1 < float(no_hit.mean()) < 0.9


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


def test_cpp_gradients_are_the_same_for_any_number_of_threads(geometry_of, volume_of):
    if cpp.why_not_compiled():
        pytest.skip(cpp.why_not_compiled())
    geometry = geometry_of(700)
    density, values = volume_of(geometry, 18, dtype=torch.float32)
    student, _ = volume_of(geometry, seed=1, dtype=torch.float32)
    threads = torch.get_num_threads()
    results = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        results.append(everything(geometry, density, values, student, backend='cpp'))
    torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_gradients_of_an_early_stop_are_those_of_what_was_rendered(geometry_of, volume_of):
    if cpp.why_not_compiled():
        pytest.skip(cpp.why_not_compiled())
    geometry = geometry_of(12, 1)
    density, values = volume_of(geometry, 2)
    leaves = [(density + 0.05).requires_grad_(), values.requires_grad_()]
    assert torch.autograd.gradcheck(
        lambda d, v: render(d, v, geometry, backend='cpp', min_transmittance=0.1), leaves
    )


def test_memory_stays_flat_over_200_steps_with_changing_rays(backend):
    """Through the registered module, rays drawn anew in each step."""
    renderer = VolumeRenderer(
        (-4, -4, -1, 4, 4, 2.2), (20, 30), max_rays=300, density='softplus', backend=backend
    )
    cam2ego = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0.05], [0, -1, 0, 0.7], [0, 0, 0, 1]])
    cam2img = torch.tensor([[20.0, 0, 16], [0, 20, 9], [0, 0, 1]])
    cameras = Cameras(cam2img[None, None], cam2ego[None, None], torch.eye(4)[None], (18, 32))
    logits = torch.randn(1, 10, 10, 4, 18, requires_grad=True)
    with torch.no_grad():
        target = torch.randn_like(logits)
    generator = torch.Generator().manual_seed(0)
    resident = []
    for step in range(200):
        geometry = renderer.trace(cameras, (10, 10, 4), generator)
        teacher, student = renderer.render_pair((target, None), (logits, None), geometry)
        loss = student.depth.sum() + student.ray_kl(teacher).sum()
        (loss + student.semantics.square().sum()).backward()
        logits.grad = None
        status = Path('/proc/self/status').read_text()
        resident.append(int(status.split('VmRSS:')[1].split()[0]))
    assert resident[-1] - resident[40] < 6 * 1024  # KB
