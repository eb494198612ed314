"""Density of occupancy logits, as every backend finds it."""

import pytest
import torch

from radocc_plugin.rendering.backends import get_backend
from radocc_plugin.rendering.density import LOGIT_DENSITIES, density_from_logits


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('voxels, classes', [(1, 2), (37, 18), (16400, 5)])
@pytest.mark.parametrize('scale', [1, 1e3])
@pytest.mark.parametrize('mode', LOGIT_DENSITIES)
def test_backends_find_density_and_gradient_of_logits(backend, dtype, voxels, classes, scale, mode):
    """Whole vectors or not, large logits, rows without a gradient."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(voxels, classes, generator=generator, dtype=dtype)
    logits = (logits * scale).requires_grad_()
    grad = torch.randn(voxels, generator=generator, dtype=dtype)
    grad[voxels // 3 : 2 * voxels // 3] = 0
    expected = density_from_logits(logits, 0.4, 1, mode)
    expected.backward(grad)

    implementation = get_backend(backend, logits.device, dtype)
    options = dict(voxel_size=0.4, free_index=1, mode=mode)
    density = implementation.chunked_density(logits.detach(), **options)
    own = torch.ones_like(logits)
    implementation.add_density_gradient_(own, grad, density, logits.detach(), **options)
    # softplus is linear from 20 on, where e^-20 is 2e-9
    tolerance = 2e-6 if dtype == torch.float32 else 2e-9
    torch.testing.assert_close(density, expected.detach(), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(own - 1, logits.grad, rtol=4 * tolerance, atol=4 * tolerance)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('column', [0, 1, 4])
@pytest.mark.parametrize('mode', LOGIT_DENSITIES)
def test_not_a_number_stays_one_where_there_is_a_gradient(backend, value, column, mode):
    """In the free logit or another; the other voxels do not see it."""
    logits = torch.zeros(40, 5)
    logits[3, column] = logits[20, column] = value
    grad = torch.ones(40)
    grad[20] = 0
    expected = logits.clone().requires_grad_()
    expected_density = density_from_logits(expected, 0.4, 1, mode)
    expected_density.backward(grad)
    implementation = get_backend(backend, logits.device)
    options = dict(voxel_size=0.4, free_index=1, mode=mode)
    density = implementation.chunked_density(logits, **options)
    assert torch.equal(density.isnan(), expected_density.isnan())
    own = torch.zeros_like(logits)
    implementation.add_density_gradient_(own, grad, density, logits, **options)
    rows = torch.arange(40) != 20  # backends may leave it out
    assert torch.equal(own.isnan()[rows], expected.grad.isnan()[rows])
