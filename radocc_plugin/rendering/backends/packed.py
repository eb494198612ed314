"""Backend ``torch``: packed segments, chunk by chunk, recomputed backward.

Sparse-times-dense products do the work, so that no (M, C) array exists:
``embedding_bag`` forward, ``sampled_addmm`` for the weights' gradient and a
bag over the transposed pattern for the voxels'. Only the inputs are kept for
the backward pass, and a float a segment of a pair. Sums over voxels run in a
fixed order on a CPU.

R rays, M segments (packed ray by ray), V voxels, C channels.
"""
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from radocc_plugin.rendering.backends.sparse_products import (
    add_transposed_product_, bag, sampled_product, spread, transpose)
from radocc_plugin.rendering.density import (  # noqa: F401 - of every backend
    add_density_gradient_, chunked_density)
from radocc_plugin.rendering.functional import MAX_OPTICAL_DEPTH, MIN_HIT
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
    """The light along the rays of a chunk, (M,) but ``no_hit`` (R,)."""
    tau: Tensor
    hit: Tensor
    entry: Tensor
    no_hit: Tensor


def _light(density: Tensor, chunk: _Chunk) -> _Light:
    tau = _optical_depth(density, chunk)
    hit = tau.neg().expm1_().neg_()
    total = tau.cumsum(0, dtype=torch.float64)
    base = _before(total, chunk.offsets)
    # Float64: a float32 sum over many rays is wrong in the first digit.
    entry = spread(base[:-1], chunk.offsets, len(tau))
    entry = entry.sub_(total).add_(tau).to(tau.dtype).exp_()
    return _Light(tau, hit, entry, (base[:-1] - base[1:]).exp_().to(tau.dtype))


def _mean_depth(light: _Light, chunk: _Chunk) -> Tuple[Tensor, Tensor]:
    """``functional.depth_in_segment`` in the form that takes the fewest
    passes, and its part ``hit / tau - 1``, (M,); the error is a rounding of
    the segment's length."""
    mean = ((light.hit + _TINY) / (light.tau + _TINY)).sub_(1)
    depth = torch.addcmul(light.hit * chunk.far, mean, chunk.far - chunk.near)
    return depth, mean


def _optical_depth(density: Tensor, chunk: _Chunk) -> Tensor:
    tau = density.index_select(0, chunk.voxel).mul_(chunk.length)
    return tau.clamp_max_(MAX_OPTICAL_DEPTH)


def render(density: Tensor, values: Tensor, geometry: RenderGeometry,
           min_transmittance: float) -> Tuple[Tensor, Tensor, Tensor]:
    """See ``ops.render``; walks every ray to its end."""
    outputs = _outputs(values, geometry)
    for chunk in _chunks(geometry, density.dtype):
        _fill(outputs, _light(density, chunk), values, chunk)
    return outputs


def render_pair(teacher: Tuple[Tensor, Tensor], student: Tuple[Tensor, Tensor],
                geometry: RenderGeometry, min_transmittance: float
                ) -> Tuple[Tuple[Tensor, ...], Tuple[Tensor, ...], Tensor,
                           List[Tensor]]:
    """Outputs of ``render`` of the student and the teacher, each (density,
    values); ``ray_kl``; its pull on the segments of each chunk, which
    finding again would take a third light in the backward pass."""
    models = student, teacher
    outputs = [_outputs(values, geometry) for _, values in models]
    divergence = student[0].new_zeros(len(geometry.rays))
    pulls = []
    for chunk in _chunks(geometry, student[0].dtype):
        lights = [_light(density, chunk) for density, _ in models]
        for own, light, (_, values) in zip(outputs, lights, models):
            _fill(own, light, values, chunk)
        divergence[chunk.rays] = _divergence(lights[1], lights[0], chunk)
        pulls.append(_pull(lights[1], lights[0]))
    return (*outputs, divergence, pulls)


def _outputs(values: Tensor,
             geometry: RenderGeometry) -> Tuple[Tensor, Tensor, Tensor]:
    number = len(geometry.rays)
    return (values.new_zeros(number),
            values.new_zeros(number, values.shape[1]), values.new_ones(number))


def _fill(outputs: Tuple[Tensor, ...], light: _Light, values: Tensor,
          chunk: _Chunk) -> None:
    depth, rendered, no_hit = outputs
    depth[chunk.rays] = _ray_sums(
        _mean_depth(light, chunk)[0].mul_(light.entry), chunk.offsets)
    rendered[chunk.rays] = bag(light.entry * light.hit, values, chunk.voxel,
                               chunk.offsets)
    no_hit[chunk.rays] = light.no_hit


def render_backward(grads: Sequence[Tensor], outputs: Sequence[Tensor],
                    density: Tensor, values: Tensor, geometry: RenderGeometry,
                    min_transmittance: float) -> Tuple[Tensor, Tensor]:
    """Gradients of the density, (V,), and of the values, (V, C).

    With ``v_k`` what ending in segment k is worth to the loss,
    ``dL/dtau_k = T_{k+1} v_k - sum_{j>k} w_j v_j - T_end dL/dT_end``, plus
    the shift of the mean depth inside segment k.
    """
    return _backward(grads, None, (), density, values, geometry)


def render_pair_backward(grads: Sequence[Tensor], grad_kl: Tensor,
                         outputs: Sequence[Tensor], pulls: Sequence[Tensor],
                         density: Tensor, values: Tensor,
                         geometry: RenderGeometry, min_transmittance: float
                         ) -> Tuple[Tensor, Tensor]:
    """Gradients of the student's density, (V,), and values, (V, C)."""
    return _backward(grads, grad_kl, pulls, density, values, geometry)


def _backward(grads: Sequence[Tensor], grad_kl: Optional[Tensor],
              pulls: Sequence[Tensor], density: Tensor, values: Tensor,
              geometry: RenderGeometry) -> Tuple[Tensor, Tensor]:
    grad_depth, grad_rendered, grad_no_hit = grads
    grad_density = torch.zeros_like(density)
    grad_values = torch.zeros_like(values)
    for number, chunk in enumerate(_chunks(geometry, density.dtype)):
        light = _light(density, chunk)
        own_grad = grad_rendered[chunk.rays]
        depth_grad = spread(grad_depth[chunk.rays], chunk.offsets,
                            len(chunk.voxel))
        worth = sampled_product(own_grad, values, chunk.voxel, chunk.offsets)
        depth, mean = _mean_depth(light, chunk)
        earned = torch.addcmul(light.hit * worth, depth_grad, depth)
        earned = earned.mul_(light.entry).cumsum(0, dtype=torch.float64)
        # What would be lost behind: the rest of the ray, and its no-hit.
        end = _before(earned, chunk.offsets)[1:]
        end += grad_no_hit[chunk.rays] * light.no_hit
        behind = earned.sub_(spread(end, chunk.offsets,
                                       len(earned))).to(density.dtype)

        passed = 1 - light.hit
        shift = _mean_by_tau(light, mean).mul_(chunk.near - chunk.far)
        shift = torch.addcmul(shift, passed, chunk.far)
        grad_tau = torch.addcmul(passed.mul_(worth), depth_grad, shift)
        grad_tau = torch.addcmul(behind, grad_tau, light.entry)
        if grad_kl is not None:
            grad_tau.addcmul_(
                pulls[number],
                spread(grad_kl[chunk.rays], chunk.offsets, len(chunk.voxel)))
        grad_density.index_add_(0, chunk.voxel, grad_tau.mul_(chunk.length))
        key = 'transposed', chunk.rays.start, chunk.rays.stop
        if key not in geometry.kept:
            geometry.kept[key] = transpose(chunk.voxel, chunk.offsets)
        add_transposed_product_(grad_values, light.entry * light.hit,
                                own_grad, geometry.kept[key])
    return grad_density, grad_values


def _mean_by_tau(light: _Light, mean: Tensor) -> Tensor:
    """``(1 - (1 + tau) e^-tau) / tau^2``, (M,)."""
    tau = light.tau
    limit = 0.02 if tau.dtype == torch.float32 else 0.002
    series = 0.5 + tau * (tau / 8 - 1 / 3)
    return torch.where(tau > limit,
                       (mean + light.hit) / (tau + _TINY),
                       series)


def _ray_sums(values: Tensor, offsets: Tensor) -> Tensor:
    """Sum of the segments of each ray: (M,) -> (R,)."""
    total = torch.segment_reduce(values.double(), 'sum', offsets=offsets)
    return total.to(values.dtype)


def _before(total: Tensor, offsets: Tensor) -> Tensor:
    """Cumulative sum of all segments before the offsets, (R + 1,)."""
    if not len(total):
        return total.new_zeros(len(offsets))
    sums = total.index_select(0, (offsets - 1).clamp_min_(0))
    return sums.masked_fill_(offsets == 0, 0)


def ray_kl(teacher_density: Tensor, student_density: Tensor,
           geometry: RenderGeometry, min_transmittance: float) -> Tensor:
    """See ``ops.ray_kl``."""
    divergence = student_density.new_zeros(len(geometry.rays))
    for chunk in _chunks(geometry, student_density.dtype):
        divergence[chunk.rays] = _divergence(
            _light(teacher_density, chunk), _light(student_density, chunk),
            chunk)
    return divergence


def _divergence(teacher: _Light, student: _Light, chunk: _Chunk) -> Tensor:
    """``functional.packed_ray_kl`` of a chunk, (R,)."""
    hit = teacher.hit.clamp_min(MIN_HIT)
    terms = (hit / student.hit.clamp_min(MIN_HIT)).log_().mul_(hit)
    terms.addcmul_(1 - teacher.hit, student.tau - teacher.tau)
    return _ray_sums(terms.mul_(teacher.entry), chunk.offsets)


def ray_kl_backward(grad: Tensor, teacher_density: Tensor,
                    student_density: Tensor, geometry: RenderGeometry,
                    min_transmittance: float) -> Tensor:
    """Gradient of the student's density, (V,)."""
    grad_density = torch.zeros_like(student_density)
    for chunk in _chunks(geometry, student_density.dtype):
        pull = _pull(
            _light(teacher_density, chunk), _light(student_density, chunk))
        pull.mul_(spread(grad[chunk.rays], chunk.offsets, len(pull)))
        grad_density.index_add_(0, chunk.voxel, pull.mul_(chunk.length))
    return grad_density


def _pull(teacher: _Light, student: _Light) -> Tensor:
    """``dKL/dtau_k = T_{k+1} - w_k e_k / (1 - e_k)`` with the teacher's T and
    w and ``e_k = exp(-tau_k)`` of the student, (M,)."""
    pull = teacher.hit.clamp_min(MIN_HIT).mul_(1 - student.hit)
    pull.div_(student.hit.clamp_min(MIN_HIT))
    return torch.sub(1 - teacher.hit, pull).mul_(teacher.entry)
