"""Backend ``torch``: packed crossings, chunk by chunk, recomputed backward.

Sparse-times-dense products do the work, so that no (M, C) array exists:
``embedding_bag`` forward; backward, voxel by voxel, ``sampled_addmm`` for the
weights' gradient and a bag of rays for the values'. Only the inputs are kept
for the backward pass, and of a pair four floats a crossing. Sums over voxels
run in a fixed order on a CPU.

R rays, M crossings (packed ray by ray), V voxels, C channels.
"""

from typing import Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from radocc_plugin.geometry import RayCrossings
from radocc_plugin.rendering.backends.sparse_products import ByVoxel, bag, by_voxel, sampled_product
from radocc_plugin.rendering.density import (  # noqa: F401 - of every backend
    add_density_gradient_,
    chunked_density,
)
from radocc_plugin.rendering.functional import MAX_OPTICAL_DEPTH, MIN_HIT
from radocc_plugin.rendering.render_geometry import RenderGeometry

# Crossings at a time; large enough for a GPU, small enough for memory.
CPU_CHUNK, GPU_CHUNK = 2**17, 2**19
# Keeps 0 / 0 of an empty voxel at its limit, 1.
_TINY = 1e-30


class _Chunk(NamedTuple):
    rays: slice
    crossings: slice
    voxel: Tensor
    near: Tensor
    far: Tensor
    length: Tensor
    offsets: Tensor
    ray: Tensor

    def spread(self, per_ray: Tensor) -> Tensor:
        """Value of the ray of each crossing: (R,) of the chunk -> (M,)."""
        return per_ray.index_select(0, self.ray)

    def sums(self, values: Tensor) -> Tensor:
        """Sum of the crossings of each ray: (M,) -> (R,)."""
        total = torch.segment_reduce(values.double(), 'sum', offsets=self.offsets)
        return total.to(values.dtype)


def _crossings(geometry: RenderGeometry, dtype: torch.dtype) -> RayCrossings:
    crossings = geometry.crossings if dtype == torch.float32 else geometry.walk(dtype)
    if 'ray' not in geometry.kept:
        geometry.kept['ray'] = torch.repeat_interleave(
            crossings.offsets.diff().int(), output_size=len(crossings.voxel)
        )
    return crossings


def _by_voxel(geometry: RenderGeometry, dtype: torch.dtype) -> ByVoxel:
    if 'by_voxel' not in geometry.kept:
        crossings = _crossings(geometry, dtype)
        geometry.kept['by_voxel'] = by_voxel(
            crossings.voxel, geometry.kept['ray'], geometry.num_voxels
        )
    return geometry.kept['by_voxel']


def _chunks(geometry: RenderGeometry, dtype: torch.dtype) -> Iterator[_Chunk]:
    """Groups of whole rays, about equal numbers of crossings each."""
    crossings = _crossings(geometry, dtype)
    offsets = crossings.offsets
    size = CPU_CHUNK if offsets.device.type == 'cpu' else GPU_CHUNK
    marks = torch.arange(0, len(crossings.voxel) + size, size, device=offsets.device)
    bounds = torch.searchsorted(offsets, marks).clamp_max(len(offsets) - 1)
    bounds[0], bounds[-1] = 0, len(offsets) - 1
    bounds = bounds.unique_consecutive()
    begins = offsets[bounds].tolist()
    bounds = bounds.tolist()
    for i in range(len(bounds) - 1):
        own = slice(begins[i], begins[i + 1])
        yield _Chunk(
            slice(bounds[i], bounds[i + 1]),
            own,
            crossings.voxel[own],
            crossings.near[own],
            crossings.far[own],
            crossings.length[own],
            offsets[bounds[i] : bounds[i + 1] + 1] - begins[i],
            geometry.kept['ray'][own] - bounds[i],
        )


class _Light(NamedTuple):
    """The light along the rays of a chunk, (M,) but ``no_hit`` (R,)."""

    tau: Tensor
    hit: Tensor
    entry: Tensor
    no_hit: Tensor


def _light(density: Tensor, chunk: _Chunk) -> _Light:
    tau = density.index_select(0, chunk.voxel).mul_(chunk.length)
    tau.clamp_max_(MAX_OPTICAL_DEPTH)
    hit = tau.neg().expm1_().neg_()
    # Float64: a float32 sum over many rays is wrong in the first digit, and
    # so is what is left in front of a wall once its tau is taken off.
    total = _running_sum(tau)
    base = _before(total, chunk.offsets)
    entry = chunk.spread(base[:-1]).sub_(total).add_(tau)
    return _Light(tau, hit, entry.to(tau.dtype).exp_(), (base[:-1] - base[1:]).exp_().to(tau.dtype))


def _running_sum(values: Tensor) -> Tensor:
    """Inclusive sum in float64, (M,). A GPU's of floats depends on the order
    in which its blocks finish, and deterministic mode refuses it: there of
    integers, in units of which the sum of all may have 2^62."""
    if values.is_cuda and torch.are_deterministic_algorithms_enabled():
        return _running_sum_of_integers(values)
    return values.cumsum(0, dtype=torch.float64)


def _running_sum_of_integers(values: Tensor) -> Tensor:
    if not len(values):
        return values.double()
    most = values.abs().max().double().clamp_min(_TINY) * len(values)
    units = 2.0**62 / most
    return values.double().mul(units).long().cumsum(0).double().div_(units)


def _mean_transmittance(light: _Light) -> Tensor:
    """``(1 - e^-tau) / tau``: that inside each crossing, of what enters."""
    return (light.hit + _TINY).div_(light.tau + _TINY)


def _depth(light: _Light, chunk: _Chunk) -> Tensor:
    """``functional.depth_in_crossing`` in the form that takes the fewest
    passes, (M,); the error is a rounding of the crossing's length."""
    mean = _mean_transmittance(light).sub_(1)
    return torch.addcmul(light.hit * chunk.far, mean, chunk.far - chunk.near)


def render(
    density: Tensor, values: Tensor, geometry: RenderGeometry, min_transmittance: float
) -> Tuple[Tensor, Tensor, Tensor]:
    """See ``ops.render``; walks every ray to its end."""
    outputs = _outputs(values, geometry)
    for chunk in _chunks(geometry, density.dtype):
        _fill(outputs, _light(density, chunk), values, chunk)
    return outputs


def render_pair(
    teacher: Tuple[Tensor, Tensor],
    student: Tuple[Tensor, Tensor],
    geometry: RenderGeometry,
    min_transmittance: float,
) -> Tuple[Tuple[Tensor, ...], Tuple[Tensor, ...], Tensor, List[Tensor]]:
    """Outputs of ``render`` of the student and the teacher, each (density,
    values); ``ray_kl``; its pull on the crossings of each chunk and the
    student's light there, which the backward pass would have to find again.
    """
    models = student, teacher
    outputs = [_outputs(values, geometry) for _, values in models]
    divergence = student[0].new_zeros(len(geometry.rays))
    kept = []
    for chunk in _chunks(geometry, student[0].dtype):
        lights = [_light(density, chunk) for density, _ in models]
        for output, light, (_, values) in zip(outputs, lights, models):
            _fill(output, light, values, chunk)
        ratio = _hit_ratio(lights[1], lights[0])
        divergence[chunk.rays] = _divergence(lights[1], lights[0], ratio, chunk)
        kept += [_pull(lights[1], lights[0], ratio), *lights[0]]
    own, target = outputs
    return own, target, divergence, kept


def _outputs(values: Tensor, geometry: RenderGeometry) -> Tuple[Tensor, Tensor, Tensor]:
    number = len(geometry.rays)
    return (
        values.new_zeros(number),
        values.new_zeros(number, values.shape[1]),
        values.new_ones(number),
    )


def _fill(outputs: Tuple[Tensor, ...], light: _Light, values: Tensor, chunk: _Chunk) -> None:
    depth, rendered, no_hit = outputs
    depth[chunk.rays] = chunk.sums(_depth(light, chunk).mul_(light.entry))
    rendered[chunk.rays] = bag(light.entry * light.hit, values, chunk.voxel, chunk.offsets)
    no_hit[chunk.rays] = light.no_hit


def render_backward(
    grads: Sequence[Tensor],
    outputs: Sequence[Tensor],
    density: Tensor,
    values: Tensor,
    geometry: RenderGeometry,
    min_transmittance: float,
) -> Tuple[Tensor, Tensor]:
    """Gradients of the density, (V,), and of the values, (V, C)."""
    lit = ((chunk, _light(density, chunk)) for chunk in _chunks(geometry, density.dtype))
    return _backward(grads, lit, density, values, geometry)


def render_pair_backward(
    grads: Sequence[Tensor],
    grad_kl: Tensor,
    outputs: Sequence[Tensor],
    kept: Sequence[Tensor],
    density: Tensor,
    values: Tensor,
    geometry: RenderGeometry,
    min_transmittance: float,
) -> Tuple[Tensor, Tensor]:
    """Gradients of the student's density, (V,), and values, (V, C)."""
    size = 1 + len(_Light._fields)
    lights = (_Light(*kept[i + 1 : i + size]) for i in range(0, len(kept), size))
    lit = zip(_chunks(geometry, density.dtype), lights)
    return _backward(grads, lit, density, values, geometry, grad_kl, kept[::size])


def _backward(
    grads: Sequence[Tensor],
    lit: Iterable[Tuple[_Chunk, _Light]],
    density: Tensor,
    values: Tensor,
    geometry: RenderGeometry,
    grad_kl: Optional[Tensor] = None,
    pulls: Sequence[Tensor] = (),
) -> Tuple[Tensor, Tensor]:
    pattern = _by_voxel(geometry, density.dtype)
    grad_rendered = grads[1]
    # Voxel by voxel the volume is read and written once, in its order.
    products = sampled_product(values, grad_rendered, pattern.ray, pattern.offsets)
    grad_density = torch.zeros_like(density)
    for number, (chunk, light) in enumerate(lit):
        weights = light.entry * light.hit
        place = pattern.place[chunk.crossings].long()
        grad_tau = _grad_tau(light, weights, products.index_select(0, place), grads, chunk)
        if grad_kl is not None:
            grad_tau.addcmul_(pulls[number], chunk.spread(grad_kl[chunk.rays]))
        grad_density.index_add_(0, chunk.voxel, grad_tau.mul_(chunk.length))
        products.index_copy_(0, place, weights)
    weights = products  # all were replaced
    return grad_density, bag(weights, grad_rendered, pattern.ray, pattern.offsets)


def _grad_tau(
    light: _Light, weights: Tensor, products: Tensor, grads: Sequence[Tensor], chunk: _Chunk
) -> Tensor:
    """Gradient of the optical depths, (M,).

    ``dL/dtau_k = T_{k+1} p_k + g T_k d_k m'_k - sum_{j>k} (w_j p_j +
    g T_j d_j m_j) - T_end (dL/dT_end - g far_end)`` with the weight w of a
    crossing, the product p of its values and their gradient, the gradient g
    of the depth, the extent d of a crossing, its mean transmittance m, ``m' =
    dm/dtau`` and the end of the ray. The depth is the integral of the
    transmittance, by parts: the crossings of a ray leave no gap.
    """
    grad_depth, _, grad_no_hit = (grad[chunk.rays] for grad in grads)
    path = (chunk.far - chunk.near).mul_(light.entry)
    path.mul_(chunk.spread(grad_depth))
    mean = _mean_transmittance(light)
    earned = (weights * products).addcmul_(path, mean)
    earned = _running_sum(earned)
    end = grad_no_hit - grad_depth * _before(chunk.far, chunk.offsets)[1:]
    end = _before(earned, chunk.offsets)[1:].add_(end * light.no_hit)
    grad_tau = earned.sub_(chunk.spread(end)).to(weights.dtype)
    grad_tau.addcmul_(light.entry.sub(weights), products)
    return grad_tau.addcmul_(path, _mean_slope(light, mean))


def _mean_slope(light: _Light, mean: Tensor) -> Tensor:
    """Derivative of the mean transmittance by tau, (M,)."""
    tau = light.tau
    limit = 0.02 if tau.dtype == torch.float32 else 0.002
    series = tau * (1 / 3 - tau / 8) - 0.5
    return torch.where(tau > limit, (1 - light.hit).sub_(mean).div_(tau), series)


def _before(values: Tensor, offsets: Tensor) -> Tensor:
    """That of the last crossing before each offset, 0 for none, (R + 1,)."""
    if not len(values):
        return values.new_zeros(len(offsets))
    last = values.index_select(0, (offsets - 1).clamp_min_(0))
    return last.masked_fill_(offsets == 0, 0)


def ray_kl(
    teacher_density: Tensor,
    student_density: Tensor,
    geometry: RenderGeometry,
    min_transmittance: float,
) -> Tensor:
    """See ``ops.ray_kl``."""
    divergence = student_density.new_zeros(len(geometry.rays))
    for chunk in _chunks(geometry, student_density.dtype):
        teacher, student = (
            _light(density, chunk) for density in (teacher_density, student_density)
        )
        divergence[chunk.rays] = _divergence(teacher, student, _hit_ratio(teacher, student), chunk)
    return divergence


def ray_kl_backward(
    grad: Tensor,
    teacher_density: Tensor,
    student_density: Tensor,
    geometry: RenderGeometry,
    min_transmittance: float,
) -> Tensor:
    """Gradient of the student's density, (V,)."""
    grad_density = torch.zeros_like(student_density)
    for chunk in _chunks(geometry, student_density.dtype):
        teacher, student = (
            _light(density, chunk) for density in (teacher_density, student_density)
        )
        pull = _pull(teacher, student, _hit_ratio(teacher, student))
        pull.mul_(chunk.spread(grad[chunk.rays])).mul_(chunk.length)
        grad_density.index_add_(0, chunk.voxel, pull)
    return grad_density


def voxel_light(
    density: Tensor, geometry: RenderGeometry, min_transmittance: float
) -> Tuple[Tensor, Tensor]:
    """See ``ops.voxel_light``; walks every ray to its end."""
    entered, ended = torch.zeros_like(density), torch.zeros_like(density)
    for chunk in _chunks(geometry, density.dtype):
        light = _light(density, chunk)
        entered.index_add_(0, chunk.voxel, light.entry)
        ended.index_add_(0, chunk.voxel, light.entry * light.hit)
    return entered, ended


def _hit_ratio(teacher: _Light, student: _Light) -> Tensor:
    return teacher.hit.clamp_min(MIN_HIT).div_(student.hit.clamp_min(MIN_HIT))


def _divergence(teacher: _Light, student: _Light, ratio: Tensor, chunk: _Chunk) -> Tensor:
    """``functional.packed_ray_kl`` of a chunk, (R,)."""
    terms = ratio.log().mul_(teacher.hit.clamp_min(MIN_HIT))
    terms.addcmul_(1 - teacher.hit, student.tau - teacher.tau)
    return chunk.sums(terms.mul_(teacher.entry))


def _pull(teacher: _Light, student: _Light, ratio: Tensor) -> Tensor:
    """``dKL/dtau_k = T_{k+1} - w_k e_k / (1 - e_k)`` with the teacher's T and
    w and ``e_k = exp(-tau_k)`` of the student, (M,)."""
    pull = torch.addcmul(teacher.hit, ratio, 1 - student.hit)
    return pull.neg_().add_(1).mul_(teacher.entry)
