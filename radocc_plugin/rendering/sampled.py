"""Rendering at uniform samples with trilinear interpolation.

The author's renderer: numeric parity with it, for comparisons. The samples
inside the grid are packed ray by ray, and the interpolation is part of a
sparse-times-dense product (eight voxels a sample), so that no [rays, samples,
classes] array exists.

R rays, M packed samples, S samples a ray, V voxels, C channels.
"""
import math
from dataclasses import dataclass
from typing import Iterator, NamedTuple, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.rendering.backends import (cpp, get_backend,
                                              sparse_products)
from radocc_plugin.rendering.functional import (packed_ray_kl,
                                                segment_transmittance,
                                                sum_rays)
from radocc_plugin.rendering.geometry import RenderGeometry

# Rays at a time; a sample of a chunk takes some 200 bytes.
_CHUNK = 1024


@dataclass(frozen=True)
class Sampling:
    """Where the rays are sampled.

    Args:
        num_samples: Samples a ray, at ``0, step, 2 step, ...``.
        step: Distance of two samples, metres of projection depth.
        align_corners: True: the first and last voxel centres lie on the
            grid's bounds, which stretches the volume by n / (n - 1) (the
            author's renderer); False: voxel centres lie in their voxels.

    Raises:
        ValueError: If a number is not positive.
    """
    num_samples: int = 287
    step: float = 0.2
    align_corners: bool = True

    @classmethod
    def of_author(cls, grid: VoxelGrid, stepsize: float = 0.5) -> 'Sampling':
        """The author's samples: ``stepsize`` voxels apart, as many as half
        the grid's diagonal takes (287 of 0.2 m for Occ3D's grid)."""
        edges = grid.voxel_size
        diagonal = math.hypot(*(n / 2 + 1 for n in grid.shape))
        return cls(
            int(diagonal / stepsize) + 1, stepsize * math.prod(edges)**(1 / 3))

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.step <= 0:
            raise ValueError('num_samples and step must be positive, got '
                             f'{self.num_samples} and {self.step}')


class _Stencil(NamedTuple):
    """Samples of some rays: ray parameter (M,), the eight voxels and their
    shares (M, 8), offsets, and the running number of each sample, (M,)."""
    rays: slice
    t: Tensor
    voxel: Tensor
    share: Tensor
    offsets: Tensor
    sample: Tensor

    def interpolate(self, volume: Tensor) -> Tensor:
        """(V,) -> (M,), differentiable."""
        return (volume[self.voxel] * self.share).sum(-1)


def _stencils(geometry: RenderGeometry, sampling: Sampling,
              dtype: torch.dtype) -> Iterator[_Stencil]:
    for begin in range(0, len(geometry.rays), _CHUNK):
        yield _stencil(geometry, sampling, dtype, begin)


def _stencil(geometry: RenderGeometry, sampling: Sampling, dtype: torch.dtype,
             begin: int) -> _Stencil:
    """Of the rays from ``begin`` on, a chunk of them."""
    rays, grid = geometry.rays, geometry.grid
    device = rays.origins.device
    low, high, shape = (
        torch.tensor(x, dtype=dtype, device=device)
        for x in (grid.minimum, grid.maximum, grid.shape))
    strides = torch.tensor(
        (grid.shape[1] * grid.shape[2], grid.shape[2], 1), device=device)
    corners = torch.cartesian_prod(*[torch.arange(2, device=device)] * 3)
    steps = torch.arange(sampling.num_samples, device=device)
    own = slice(begin, min(begin + _CHUNK, len(rays)))
    points = (rays.origins[own, None].to(dtype) +
              rays.directions[own, None].to(dtype) *
              (steps.to(dtype) * sampling.step)[:, None])
    inside = ((points >= low) & (points <= high)).all(-1)
    ray, sample = inside.nonzero(as_tuple=True)
    where = (points[ray, sample] - low) / (high - low)
    where = (
        where * (shape - 1)
        if sampling.align_corners else where * shape - 0.5)
    cell = where.floor()
    part = (where - cell)[:, None]
    cell = cell.long()[:, None] + corners  # (M, 8, 3)
    share = torch.where(corners.bool(), part, 1 - part).prod(-1)
    # A corner outside the grid counts for nothing.
    valid = ((cell >= 0) & (cell < shape)).all(-1)
    cell = torch.minimum(cell.clamp_min(0), shape.long() - 1)
    voxel = (cell * strides).sum(-1)
    voxel += (rays.sample[own][ray] * grid.num_voxels)[:, None]
    offsets = F.pad(inside.sum(-1).cumsum(0), (1, 0))
    return _Stencil(own, sample.to(dtype) * sampling.step, voxel,
                    share * valid, offsets, sample)


def render_samples(density_logits: Tensor,
                   values: Tensor,
                   geometry: RenderGeometry,
                   sampling: Sampling = Sampling(),
                   *,
                   backend: str = 'auto',
                   min_transmittance: float = 0.0) -> Tuple[Tensor, ...]:
    """Renders a volume at uniform samples, as the RadOcc author does.

    ``alpha = 1 - exp(-softplus(interpolated density logit) * step)``; samples
    outside the grid have alpha 0; the step is that of the projection depth,
    not of the metric length.

    Args:
        density_logits: Raw density, such as the negative free logit, (V,).
        values: What is accumulated, (V, C).
        geometry: Rays and grid.
        sampling: The samples.
        backend: As in ``render``; ``triton`` has no sampled mode.
        min_transmittance: As in ``render``, for the backend ``cpp``.

    Returns:
        Accumulated projection depth in metres, (R,); accumulated values, (R,
        C); no-hit probability, (R,).

    Raises:
        ValueError: If a shape, a type or the backend is wrong.

    ``nerf_head.py`` @5b4538f7 of the author, ``render_type='density'``.
    """
    geometry.check_volume('density_logits', density_logits)
    geometry.check_volume('values', values, like=density_logits)
    implementation = _Packed
    if backend in ('auto', 'cpp') and density_logits.device.type == 'cpu':
        if get_backend('cpp', density_logits.device) is cpp:
            implementation = cpp
    elif backend not in ('auto', 'torch'):
        raise ValueError("sampled rendering takes backend 'auto', 'torch' or "
                         f"'cpp' (CPU only), got {backend!r}")
    return _RenderSamples.apply(density_logits.contiguous(),
                                values.contiguous(), geometry, sampling,
                                implementation, min_transmittance)


class _Packed:
    """Sampled rendering by sparse products, any device."""

    @staticmethod
    def render_samples(density_logits, values, geometry, sampling, _):
        num_rays = len(geometry.rays)
        depth = density_logits.new_zeros(num_rays)
        no_hit = density_logits.new_ones(num_rays)
        rendered = values.new_zeros(num_rays, values.shape[1])
        for s in _stencils(geometry, sampling, density_logits.dtype):
            tau = F.softplus(s.interpolate(density_logits)) * sampling.step
            entry, no_hit[s.rays] = segment_transmittance(tau, s.offsets)
            weights = entry * -torch.expm1(-tau)
            depth[s.rays] = sum_rays(weights * s.t, s.offsets)
            rendered[s.rays] = sparse_products.bag(
                (weights[:, None] * s.share).flatten(), values,
                s.voxel.flatten(), s.offsets * 8)
        return depth, rendered, no_hit

    @staticmethod
    def render_samples_backward(grads, density_logits, values, geometry,
                                sampling, _):
        grad_depth, grad_rendered, grad_no_hit = grads
        grad_density = torch.zeros_like(density_logits)
        grad_values = torch.zeros_like(values)
        for s in _stencils(geometry, sampling, density_logits.dtype):
            raw = s.interpolate(density_logits)
            tau = F.softplus(raw) * sampling.step
            entry, no_hit = segment_transmittance(tau, s.offsets)
            weights = entry * -torch.expm1(-tau)
            grad = grad_rendered[s.rays]
            voxel, offsets = s.voxel.flatten(), s.offsets * 8
            worth = sparse_products.sampled_product(grad, values, voxel,
                                                    offsets)
            worth = (worth.view(-1, 8) * s.share).sum(-1)
            worth += sparse_products.spread(grad_depth[s.rays], s.offsets,
                                            len(s.t)) * s.t
            behind = sparse_products.sum_after(weights * worth, s.offsets)
            behind += sparse_products.spread(grad_no_hit[s.rays] * no_hit,
                                             s.offsets, len(s.t))
            grad_raw = ((entry - weights) * worth - behind) * (
                sampling.step * torch.sigmoid(raw))
            grad_density.index_add_(0, voxel,
                                    (grad_raw[:, None] * s.share).flatten())
            sparse_products.add_transposed_product_(
                grad_values, (weights[:, None] * s.share).flatten(), grad,
                voxel, offsets)
        return grad_density, grad_values


class _RenderSamples(torch.autograd.Function):

    @staticmethod
    def forward(ctx, density_logits, values, *static):
        geometry, sampling, implementation, min_transmittance = static
        ctx.save_for_backward(density_logits, values)
        ctx.static = geometry, sampling, min_transmittance
        ctx.implementation = implementation
        return implementation.render_samples(density_logits, values,
                                             *ctx.static)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        grads = ctx.implementation.render_samples_backward(
            tuple(grad.contiguous() for grad in grads), *ctx.saved_tensors,
            *ctx.static)
        return (*grads, None, None, None, None)


def sampled_weights(density_logits: Tensor, geometry: RenderGeometry,
                    sampling: Sampling) -> Tuple[Tensor, Tensor]:
    """Termination weights of all samples, dense, and the no-hit probability.

    Returns:
        Weights, 0 outside the grid, (R, S), and (R,); differentiable.
    """
    weights, no_hits = [], []
    for s in _stencils(geometry, sampling, density_logits.dtype):
        tau = F.softplus(s.interpolate(density_logits)) * sampling.step
        entry, no_hit = segment_transmittance(tau, s.offsets)
        rows = len(s.offsets) - 1
        ray = sparse_products.spread(
            torch.arange(rows, device=tau.device), s.offsets, len(s.t))
        dense = tau.new_zeros(rows, sampling.num_samples)
        weights.append(
            dense.index_put((ray, s.sample), entry * -torch.expm1(-tau)))
        no_hits.append(no_hit)
    if not weights:
        return (density_logits.new_zeros(0, sampling.num_samples) +
                density_logits.sum() * 0, density_logits.new_zeros(0))
    return torch.cat(weights), torch.cat(no_hits)


def sampled_ray_kl(teacher_density_logits: Tensor,
                   student_density_logits: Tensor, geometry: RenderGeometry,
                   sampling: Sampling) -> Tensor:
    """``ray_kl`` with one bin a sample and one no-hit bin, (R,)."""

    teacher = teacher_density_logits.detach()

    def divergence(student: Tensor, begin: int) -> Tensor:
        s = _stencil(geometry, sampling, student.dtype, begin)
        target, own = (
            F.softplus(s.interpolate(logits)) * sampling.step
            for logits in (teacher, student))
        return packed_ray_kl(target, own, s.offsets)

    parts = [
        checkpoint(
            divergence, student_density_logits, begin, use_reentrant=False)
        for begin in range(0, len(geometry.rays), _CHUNK)
    ]
    return torch.cat(parts) if parts else student_density_logits[:0]
