import pytest
import torch
import torch.nn.functional as F

from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.rendering import (Sampling, render_samples,
                                     sampled_ray_kl, sampled_weights)

GRID = VoxelGrid((-1, -1, -1, 1, 1.4, 1), (5, 6, 5))
SAMPLING = Sampling(24, 0.17)


def logits_of(geometry, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (geometry.num_voxels, )
    return (torch.randn(shape, generator=generator, dtype=torch.float64),
            torch.randn(*shape, 3, generator=generator, dtype=torch.float64))


def dense(density_logits, values, geometry, sampling):
    """Independent: grid_sample of dense samples, sample by sample."""
    grid, rays = geometry.grid, geometry.rays
    low, high = (torch.tensor(x, dtype=torch.float64)
                 for x in (grid.minimum, grid.maximum))
    volume = torch.cat((density_logits[:, None], values), 1)
    volume = volume.view(geometry.num_volumes, *grid.shape,
                         -1).permute(0, 4, 1, 2, 3)
    left = torch.ones(len(rays), dtype=torch.float64)
    depth = torch.zeros_like(left)
    rendered = torch.zeros(len(rays), values.shape[1], dtype=torch.float64)
    for k in range(sampling.num_samples):
        t = k * sampling.step
        points = rays.origins.double() + rays.directions.double() * t
        where = (2 * (points - low) / (high - low) - 1).flip(-1)
        inside = (where.abs() <= 1).all(-1)
        sampled = torch.stack([
            F.grid_sample(
                volume[b:b + 1],
                p[None, None, None, None],
                align_corners=sampling.align_corners)[0, :, 0, 0, 0]
            for b, p in zip(rays.sample.tolist(), where)
        ])
        tau = F.softplus(sampled[:, 0]) * sampling.step * inside
        weight = left * (1 - torch.exp(-tau))
        depth = depth + weight * t
        rendered = rendered + weight[:, None] * sampled[:, 1:]
        left = left * torch.exp(-tau)
    return depth, rendered, left


@pytest.mark.parametrize('align_corners', [True, False])
def test_equals_dense_sampling(geometry_of, backend, align_corners):
    geometry = geometry_of(30, batch=2, grid=GRID)
    sampling = Sampling(24, 0.17, align_corners)
    results = []
    for function in (dense, render_samples):
        leaves = [x.requires_grad_() for x in logits_of(geometry)]
        extra = {} if function is dense else dict(backend=backend)
        outputs = function(*leaves, geometry, sampling, **extra)
        loss = sum((x * x).sum() for x in outputs)
        results.append([*outputs, *torch.autograd.grad(loss, leaves)])
    for got, want in zip(*results):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_gradients_pass_gradcheck(geometry_of, backend):
    geometry = geometry_of(8, grid=GRID)
    leaves = [x.requires_grad_() for x in logits_of(geometry)]
    assert torch.autograd.gradcheck(
        lambda d, v: render_samples(
            d, v, geometry, SAMPLING, backend=backend), leaves)


def test_weights_render_the_depth(geometry_of):
    geometry = geometry_of(30, grid=GRID)
    density, values = logits_of(geometry)
    weights, no_hit = sampled_weights(density, geometry, SAMPLING)
    depth, _, end = render_samples(
        density, values, geometry, SAMPLING, backend='torch')
    t = torch.arange(SAMPLING.num_samples) * SAMPLING.step
    torch.testing.assert_close((weights * t).sum(1), depth)
    torch.testing.assert_close(no_hit, end)


def test_kl_is_that_of_the_dense_weights(geometry_of):
    geometry = geometry_of(30, grid=GRID)
    teacher, student = (logits_of(geometry, s)[0] for s in (0, 1))
    student.requires_grad_()
    kl = sampled_ray_kl(teacher, student, geometry, SAMPLING)
    (p, p_end), (q, q_end) = (
        sampled_weights(x, geometry, SAMPLING) for x in (teacher, student))
    p, q = torch.cat((p, p_end[:, None]), 1), torch.cat((q, q_end[:, None]), 1)
    want = torch.where(p > 0, p * (p / q.clamp_min(1e-30)).log(), 0).sum(1)
    torch.testing.assert_close(kl, want, rtol=1e-5, atol=1e-6)
    got, = torch.autograd.grad(kl.sum(), student, retain_graph=True)
    want, = torch.autograd.grad(want.sum(), student)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_the_author_takes_287_samples_of_a_fifth_of_a_metre():
    grid = VoxelGrid((-40, -40, -1, 40, 40, 5.4), (200, 200, 16))
    sampling = Sampling.of_author(grid)
    assert sampling.num_samples == 287
    assert sampling.step == pytest.approx(0.2)


@pytest.mark.parametrize('change, message', [
    (dict(num_samples=0), 'num_samples'),
    (dict(step=-1.), 'step'),
])
def test_bad_samplings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**change)


@pytest.mark.parametrize('name', ['triton', 'reference'])
def test_backends_without_a_sampled_mode_are_named(geometry_of, name):
    geometry = geometry_of(3, grid=GRID)
    with pytest.raises(ValueError, match='sampled rendering'):
        render_samples(*logits_of(geometry), geometry, SAMPLING, backend=name)
