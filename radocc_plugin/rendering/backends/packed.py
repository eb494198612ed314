"""Backend ``torch``: packed segments, chunk by chunk, recomputed backward.

Sparse-times-dense products do the work, so that no (M, C) array exists:
``embedding_bag`` forward, ``sampled_addmm`` for the weights' gradient and a
bag over the transposed pattern for the voxels'. Only the inputs are kept for
the backward pass. Sums over voxels run in a fixed order on a CPU.

R rays, M segments (packed ray by ray), V voxels, C channels.
"""
import warnings
from typing import Iterator, NamedTuple, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from radocc_plugin.rendering.functional import (MAX_OPTICAL_DEPTH, MIN_HIT,
                                                packed_ray_kl,
                                                segment_transmittance)
from radocc_plugin.rendering.geometry import RenderGeometry

# Segments at a time; large enough for a GPU, small enough for memory.
CPU_CHUNK, GPU_CHUNK = 2**17, 2**19
# Keeps 0 / 0 of an empty voxel at its limit, 1.
_TINY = 1e-30


class _Chunk(NamedTuple):
    rays: slice
    voxel: Tensor
    near: Tensor
    far: Tensor
    length: Tensor
    offsets: Tensor


def _chunks(geometry: RenderGeometry, dtype: torch.dtype) -> Iterator[_Chunk]:
    """Groups of whole rays, about equal numbers of segments each."""
    segments = (
        geometry.segments if dtype == torch.float32 else geometry.walk(dtype))
    offsets = segments.offsets
    size = CPU_CHUNK if offsets.device.type == 'cpu' else GPU_CHUNK
    marks = torch.arange(
        0, len(segments.voxel) + size, size, device=offsets.device)
    bounds = torch.searchsorted(offsets, marks).clamp_max(len(offsets) - 1)
    bounds[0], bounds[-1] = 0, len(offsets) - 1
    bounds = bounds.unique_consecutive()
    begins = offsets[bounds].tolist()
    bounds = bounds.tolist()
    for i in range(len(bounds) - 1):
        own = slice(begins[i], begins[i + 1])
        yield _Chunk(
            slice(bounds[i], bounds[i + 1]), segments.voxel[own],
            segments.near[own], segments.far[own], segments.length[own],
            offsets[bounds[i]:bounds[i + 1] + 1] - begins[i])


class _Light(NamedTuple):
    """The light along the rays of a chunk, (M,) but ``no_hit`` (R,).

    ``depth`` is ``functional.depth_in_segment`` in the form that takes the
    fewest passes; its error is a rounding of the segment's length.
    """
    tau: Tensor
    hit: Tensor
    entry: Tensor
    depth: Tensor
    mean_per_tau: Tensor
    no_hit: Tensor


def _light(density: Tensor, chunk: _Chunk) -> _Light:
    tau = _optical_depth(density, chunk)
    hit = tau.neg().expm1_().neg_()
    total = tau.cumsum(0, dtype=torch.float64)
    base = F.pad(total, (1, 0)).index_select(0, chunk.offsets)
    # Float64: a float32 sum over many rays is wrong in the first digit.
    entry = spread(base[:-1], chunk.offsets, len(tau))
    entry.sub_(total).add_(tau).exp_()
    extent = chunk.far - chunk.near
    mean = ((hit + _TINY) / (tau + _TINY)).sub_(1)  # less the hits
    depth = torch.addcmul(hit * chunk.far, mean, extent)
    return _Light(tau, hit, entry.to(tau.dtype), depth, mean,
                  (base[:-1] - base[1:]).exp_().to(tau.dtype))


def _optical_depth(density: Tensor, chunk: _Chunk) -> Tensor:
    tau = density.index_select(0, chunk.voxel).mul_(chunk.length)
    return tau.clamp_max_(MAX_OPTICAL_DEPTH)


def render(density: Tensor, values: Tensor, geometry: RenderGeometry,
           min_transmittance: float) -> Tuple[Tensor, Tensor, Tensor]:
    """See ``ops.render``; walks every ray to its end."""
    num_rays = len(geometry.rays)
    depth = density.new_zeros(num_rays)
    no_hit = density.new_ones(num_rays)
    rendered = values.new_zeros(num_rays, values.shape[1])
    for chunk in _chunks(geometry, density.dtype):
        light = _light(density, chunk)
        no_hit[chunk.rays] = light.no_hit
        depth[chunk.rays] = _ray_sums(light.entry * light.depth,
                                      chunk.offsets)
        rendered[chunk.rays] = bag(light.entry * light.hit, values,
                                   chunk.voxel, chunk.offsets)
    return depth, rendered, no_hit


def render_backward(grads: Sequence[Tensor], outputs: Sequence[Tensor],
                    density: Tensor, values: Tensor, geometry: RenderGeometry,
                    min_transmittance: float) -> Tuple[Tensor, Tensor]:
    """Gradients of the density, (V,), and of the values, (V, C).

    With ``v_k`` what ending in segment k is worth to the loss,
    ``dL/dtau_k = T_{k+1} v_k - sum_{j>k} w_j v_j - T_end dL/dT_end``, plus
    the shift of the mean depth inside segment k.
    """
    grad_depth, grad_rendered, grad_no_hit = grads
    grad_density = torch.zeros_like(density)
    grad_values = torch.zeros_like(values)
    for chunk in _chunks(geometry, density.dtype):
        light = _light(density, chunk)
        own_grad = grad_rendered[chunk.rays]
        depth_grad = spread(grad_depth[chunk.rays], chunk.offsets,
                            len(chunk.voxel))
        worth = sampled_product(own_grad, values, chunk.voxel, chunk.offsets)
        earned = torch.addcmul(light.hit * worth, depth_grad, light.depth)
        earned = earned.mul_(light.entry).cumsum(0, dtype=torch.float64)
        # What would be lost behind: the rest of the ray, and its no-hit.
        end = F.pad(earned, (1, 0)).index_select(0, chunk.offsets[1:])
        end += grad_no_hit[chunk.rays] * light.no_hit
        behind = earned.sub_(spread(end, chunk.offsets,
                                       len(earned))).to(density.dtype)

        passed = 1 - light.hit
        shift = _mean_by_tau(light).mul_(chunk.near - chunk.far)
        shift = torch.addcmul(shift, passed, chunk.far)
        grad_tau = torch.addcmul(passed.mul_(worth), depth_grad, shift)
        grad_tau = torch.addcmul(behind, grad_tau, light.entry)
        grad_density.index_add_(0, chunk.voxel, grad_tau.mul_(chunk.length))
        add_transposed_product_(grad_values, light.entry * light.hit,
                                own_grad, chunk.voxel, chunk.offsets)
    return grad_density, grad_values


def _mean_by_tau(light: _Light) -> Tensor:
    """``(1 - (1 + tau) e^-tau) / tau^2``, (M,)."""
    tau = light.tau
    limit = 0.02 if tau.dtype == torch.float32 else 0.002
    series = 0.5 + tau * (tau / 8 - 1 / 3)
    return torch.where(tau > limit,
                       (light.mean_per_tau + light.hit) / (tau + _TINY),
                       series)


def _ray_sums(values: Tensor, offsets: Tensor) -> Tensor:
    """Sum of the segments of each ray: (M,) -> (R,)."""
    total = F.pad(values.cumsum(0, dtype=torch.float64), (1, 0))
    return total.index_select(0, offsets).diff().to(values.dtype)


def spread(per_ray: Tensor, offsets: Tensor, number: int) -> Tensor:
    """Value of the ray of each of ``number`` segments: (R,) -> (M,)."""
    return torch.repeat_interleave(
        per_ray, offsets.diff(), output_size=number)


def sum_after(values: Tensor, offsets: Tensor) -> Tensor:
    """Sum of the later segments of the same ray, exclusive, (M,)."""
    total = values.double().cumsum(0)
    end = F.pad(total, (1, 0))[offsets[1:]]
    return (spread(end, offsets, len(total)) - total).to(values.dtype)


def bag(weights: Tensor, values: Tensor, index: Tensor,
        offsets: Tensor) -> Tensor:
    """Weighted sum of rows of ``values`` for each bag of indices."""
    return F.embedding_bag(
        index,
        values,
        offsets,
        mode='sum',
        per_sample_weights=weights,
        include_last_offset=True)


def sampled_product(grad: Tensor, values: Tensor, voxel: Tensor,
                    offsets: Tensor) -> Tensor:
    """``grad[ray] . values[voxel]`` of each segment, (M,)."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Sparse CSR tensor support')
        pattern = torch.sparse_csr_tensor(
            offsets,
            voxel,
            grad.new_zeros(len(voxel)),
            size=(len(grad), len(values)),
            check_invariants=False)
    return torch.sparse.sampled_addmm(
        pattern, grad.contiguous(), values.t(), beta=0.0).values()


def add_transposed_product_(out: Tensor, weights: Tensor, grad: Tensor,
                            voxel: Tensor, offsets: Tensor) -> None:
    """Adds ``weight * grad[ray]`` of each segment to its voxel's row: one
    bag of rays for each voxel that the chunk touches."""
    ray = spread(
        torch.arange(len(grad), device=grad.device), offsets, len(voxel))
    order = _stable_order(voxel)
    voxel, count = voxel.index_select(0, order).unique_consecutive(
        return_counts=True)
    rows = bag(
        weights.index_select(0, order), grad, ray.index_select(0, order),
        F.pad(count.cumsum(0), (1, 0)))
    out.index_add_(0, voxel, rows)


def _stable_order(index: Tensor) -> Tensor:
    """``index.argsort(stable=True)``, int64; on a CPU by numpy, whose plain
    sort is some eight times faster, of keys that hold the place too."""
    if index.device.type != 'cpu':
        return index.argsort(stable=True)
    key = (index << 32) + torch.arange(len(index))
    key.numpy().sort()
    return key & (2**32 - 1)


def ray_kl(teacher_density: Tensor, student_density: Tensor,
           geometry: RenderGeometry, min_transmittance: float) -> Tensor:
    """See ``ops.ray_kl``."""
    divergence = student_density.new_zeros(len(geometry.rays))
    for chunk in _chunks(geometry, student_density.dtype):
        divergence[chunk.rays] = packed_ray_kl(
            _optical_depth(teacher_density, chunk),
            _optical_depth(student_density, chunk), chunk.offsets)
    return divergence


def ray_kl_backward(grad: Tensor, teacher_density: Tensor,
                    student_density: Tensor, geometry: RenderGeometry,
                    min_transmittance: float) -> Tensor:
    """Gradient of the student's density, (V,):
    ``dKL/dtau_k = T_{k+1} - w_k e_k / (1 - e_k)`` with the teacher's T and w
    and ``e_k = exp(-tau_k)`` of the student."""
    grad_density = torch.zeros_like(student_density)
    for chunk in _chunks(geometry, student_density.dtype):
        teacher = _optical_depth(teacher_density, chunk)
        student = _optical_depth(student_density, chunk)
        entry, _ = segment_transmittance(teacher, chunk.offsets)
        hit = (-torch.expm1(-teacher)).clamp_min(MIN_HIT)
        student_hit = -torch.expm1(-student)
        pull = hit * (1 - student_hit) / student_hit.clamp_min(MIN_HIT)
        grad_tau = entry * ((-teacher).exp() - pull)
        grad_tau *= spread(grad[chunk.rays], chunk.offsets,
                           len(chunk.voxel))
        grad_density.index_add_(0, chunk.voxel, grad_tau * chunk.length)
    return grad_density
