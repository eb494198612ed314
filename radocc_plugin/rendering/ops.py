"""Differentiable rendering of piecewise-constant volumes, any backend.

R rays, V voxels of all volumes, C channels.
"""

from typing import Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from radocc_plugin.rendering.backends import get_backend, reference
from radocc_plugin.rendering.density import check_logit_density, class_index, density_from_logits
from radocc_plugin.rendering.render_geometry import RenderGeometry


def render(
    density: Tensor,
    values: Tensor,
    geometry: RenderGeometry,
    *,
    backend: str = 'auto',
    min_transmittance: float = 1e-4,
) -> Tuple[Tensor, Tensor, Tensor]:
    """Renders a volume with constant density and values in each voxel.

    Every voxel that a ray crosses counts with its exact length. Nothing of
    the size of the crossings is kept for the backward pass.

    Args:
        density: Density in 1/m, >= 0, (V,), flat (batch, x, y, z).
        values: What is accumulated, such as semantic logits, (V, C).
        geometry: Rays and grid.
        backend: One of ``BACKENDS``, see ``get_backend``.
        min_transmittance: ``cpp`` and ``triton`` stop a ray where less than
            this is left, which is then counted as no-hit; 0 for none. The
            expected depth changes by at most this share of the rest.

    Returns:
        Accumulated projection depth in metres, (R,), not divided by the
        opacity; accumulated values, (R, C); no-hit probability, (R,).

    Raises:
        ValueError: If a shape, a type or the backend is wrong.

    RadOcc section 3.2; the closed form of the depth is that of
    ``functional.depth_in_crossing``.
    """
    geometry.check_volume('density', density)
    geometry.check_volume('values', values, like=density)
    if backend == 'reference':
        return reference.render(density, values, geometry)
    implementation = get_backend(backend, density.device, density.dtype)
    return _Render.apply(
        density.contiguous(), values.contiguous(), geometry, implementation, min_transmittance
    )


def render_logits(
    logits: Tensor,
    geometry: RenderGeometry,
    *,
    density: str = 'free_probability',
    free_index: int = -1,
    backend: str = 'auto',
    min_transmittance: float = 1e-4,
) -> Tuple[Tensor, ...]:
    """Renders occupancy logits, density and semantics from one tensor.

    The same as ``density_from_logits`` and ``render`` of the non-free logits,
    with one gradient buffer of the size of the logits in place of three.

    Args:
        logits: Occupancy logits, (V, C), flat (batch, x, y, z).
        geometry: Rays and a grid of cubic voxels.
        density: One of ``LOGIT_DENSITIES``.
        free_index: Class of free space.
        backend: As in ``render``.
        min_transmittance: As in ``render``.

    Returns:
        Density in 1/m, (V,); accumulated projection depth in metres, (R,);
        accumulated logits of the non-free classes, (R, C - 1); no-hit
        probability, (R,).

    Raises:
        ValueError: If a shape, a type, the density or the backend is wrong.
    """
    check_logit_density(density)
    geometry.check_volume('logits', logits, like=logits)
    geometry.check_volume('logits', logits[:, 0])
    free = class_index(free_index, logits.shape[1])
    size = geometry.cubic_voxel_size
    if backend == 'reference':
        sigma = density_from_logits(logits, size, free, density)
        depth, rendered, no_hit = reference.render(sigma, logits, geometry)
    else:
        implementation = get_backend(backend, logits.device, logits.dtype)
        sigma, depth, rendered, no_hit = _RenderLogits.apply(
            logits.contiguous(),
            geometry,
            implementation,
            min_transmittance,
            dict(voxel_size=size, free_index=free, mode=density),
        )
    return sigma, depth, _without(rendered, free), no_hit


def render_logits_pair(
    teacher_logits: Tensor,
    student_logits: Tensor,
    geometry: RenderGeometry,
    *,
    density: str = 'free_probability',
    free_index: int = -1,
    backend: str = 'auto',
    min_transmittance: float = 1e-4,
) -> Tuple[Tuple[Tensor, ...], Tuple[Tensor, ...], Tensor]:
    """Renders teacher and student along the same rays, and compares them.

    The same as ``render_logits`` of both and ``ray_kl`` of their densities;
    ``cpp`` and ``torch`` walk the rays once for all of it, forward and
    backward.

    Args:
        teacher_logits: Occupancy logits, (V, C); no gradient.
        student_logits: The same of the student, (V, C).
        geometry: Rays and a grid of cubic voxels.
        density: One of ``LOGIT_DENSITIES``.
        free_index: Class of free space.
        backend: As in ``render``.
        min_transmittance: As in ``render``.

    Returns:
        What ``render_logits`` returns of the teacher; the same of the
        student; the divergence of each ray, (R,).

    Raises:
        ValueError: If a shape, a type, the density or the backend is wrong.
    """
    check_logit_density(density)
    geometry.check_volume('student_logits', student_logits[:, 0])
    geometry.check_volume('student_logits', student_logits, like=student_logits)
    if (teacher_logits.shape, teacher_logits.dtype) != (student_logits.shape, student_logits.dtype):
        raise ValueError(
            'teacher_logits and student_logits take one shape and type, got '
            f'{tuple(teacher_logits.shape)} in {teacher_logits.dtype} and '
            f'{tuple(student_logits.shape)} in {student_logits.dtype}'
        )
    teacher_logits = teacher_logits.detach()
    free = class_index(free_index, student_logits.shape[1])
    if backend == 'reference':
        teacher, student = (
            render_logits(x, geometry, density=density, free_index=free, backend=backend)
            for x in (teacher_logits, student_logits)
        )
        return teacher, student, ray_kl(teacher[0], student[0], geometry, backend=backend)
    implementation = get_backend(backend, student_logits.device, student_logits.dtype)
    *outputs, divergence = _RenderPair.apply(
        student_logits.contiguous(),
        teacher_logits.contiguous(),
        geometry,
        implementation,
        min_transmittance,
        dict(voxel_size=geometry.cubic_voxel_size, free_index=free, mode=density),
    )
    student, teacher = (
        (sigma, depth, _without(rendered, free), no_hit)
        for sigma, depth, rendered, no_hit in (outputs[:4], outputs[4:])
    )
    return teacher, student, divergence


def _without(rendered: Tensor, free: int) -> Tensor:
    return torch.cat((rendered[:, :free], rendered[:, free + 1 :]), dim=1)


def ray_kl(
    teacher_density: Tensor,
    student_density: Tensor,
    geometry: RenderGeometry,
    *,
    backend: str = 'auto',
    min_transmittance: float = 1e-4,
) -> Tensor:
    """KL(teacher || student) of where each ray ends, in nats.

    One bin a crossed voxel and one no-hit bin. Neither distribution is ever
    stored, and the gradient is analytic; see ``functional.packed_ray_kl``.

    Args:
        teacher_density: Density in 1/m, (V,); no gradient.
        student_density: The same of the student, (V,).
        geometry: Rays and grid.
        backend: One of ``BACKENDS``, see ``get_backend``.
        min_transmittance: As in ``render``, of the teacher.

    Returns:
        Divergence of each ray, >= 0 up to rounding, (R,).

    Raises:
        ValueError: If a shape, a type or the backend is wrong.

    RadOcc section 3.3.
    """
    geometry.check_volume('teacher_density', teacher_density)
    geometry.check_volume('student_density', student_density)
    if teacher_density.dtype != student_density.dtype:
        raise ValueError(
            'teacher_density and student_density take one type, '
            f'got {teacher_density.dtype} and '
            f'{student_density.dtype}'
        )
    if backend == 'reference':
        return reference.ray_kl(teacher_density, student_density, geometry)
    implementation = get_backend(backend, student_density.device, student_density.dtype)
    return _RayKL.apply(
        teacher_density.detach().contiguous(),
        student_density.contiguous(),
        geometry,
        implementation,
        min_transmittance,
    )


@torch.no_grad()
def voxel_light(
    density: Tensor,
    geometry: RenderGeometry,
    *,
    backend: str = 'auto',
    min_transmittance: float = 1e-4,
) -> Tuple[Tensor, Tensor]:
    """The light that enters each voxel and that ends in it, of all rays.

    Light enters a voxel by as much as a ray has left there, so a ray counts 1
    in each voxel up to the first surface and what passes it behind; a voxel
    that no ray crosses has 0. With these weights n the divergence of the rays
    is one of voxels: ``sum_r ray_kl_r = sum_v n_v KL(Bernoulli_v)`` where
    every crossing has one length, and with the classes in place of the two
    outcomes the divergence of what the rays see.

    Args:
        density: Density in 1/m, >= 0, (V,), flat (batch, x, y, z).
        geometry: Rays and grid.
        backend: One of ``BACKENDS``, see ``get_backend``.
        min_transmittance: As in ``render``: what is left of a ray below it
            enters nothing.

    Returns:
        The transmittance of the rays at the entry of each voxel, summed, (V,);
        their termination weights there, summed, (V,). No gradient.

    Raises:
        ValueError: If a shape, a type or the backend is wrong.
    """
    geometry.check_volume('density', density)
    if backend == 'reference':
        return reference.voxel_light(density, geometry)
    implementation = get_backend(backend, density.device, density.dtype, gradients=False)
    return implementation.voxel_light(density.contiguous(), geometry, min_transmittance)


@torch.no_grad()
def voxel_light_of_logits(
    logits: Tensor,
    geometry: RenderGeometry,
    *,
    density: str = 'free_probability',
    free_index: int = -1,
    backend: str = 'auto',
    min_transmittance: float = 1e-4,
) -> Tuple[Tensor, Tensor]:
    """``voxel_light`` of occupancy logits (V, C), without (V, C) temporaries.

    Args and errors are those of ``render_logits``.
    """
    check_logit_density(density)
    geometry.check_volume('logits', logits, like=logits)
    implementation = reference
    if backend != 'reference':
        implementation = get_backend(backend, logits.device, logits.dtype, gradients=False)
    sigma = implementation.chunked_density(
        logits.contiguous(),
        geometry.cubic_voxel_size,
        class_index(free_index, logits.shape[1]),
        density,
    )
    return voxel_light(sigma, geometry, backend=backend, min_transmittance=min_transmittance)


class _Render(torch.autograd.Function):
    @staticmethod
    def forward(ctx, density, values, geometry, backend, min_transmittance):
        outputs = backend.render(density, values, geometry, min_transmittance)
        ctx.save_for_backward(density, values, *outputs)
        ctx.set_materialize_grads(False)
        ctx.static = geometry, min_transmittance
        ctx.backend = backend
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        density, values, *outputs = ctx.saved_tensors
        grads, outputs, seen = _asked(grads, outputs, values)
        own, grad = ctx.backend.render_backward(grads, outputs, density, seen, *ctx.static)
        if grad.shape != values.shape:
            grad = None
        return own, grad, None, None, None


class _RenderLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, geometry, backend, min_transmittance, options):
        density = backend.chunked_density(logits, **options)
        outputs = backend.render(density, logits, geometry, min_transmittance)
        ctx.save_for_backward(density, logits, *outputs)
        ctx.set_materialize_grads(False)
        ctx.static = geometry, min_transmittance
        ctx.backend, ctx.options = backend, options
        return density, *outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_density, *grads):
        density, logits, *outputs = ctx.saved_tensors
        grads, outputs, values = _asked(grads, outputs, logits)
        own, grad = ctx.backend.render_backward(grads, outputs, density, values, *ctx.static)
        if grad.shape != logits.shape:
            grad = torch.zeros_like(logits)
        if grad_density is not None:
            own += grad_density
        ctx.backend.add_density_gradient_(grad, own, density, logits, **ctx.options)
        return grad, None, None, None, None


class _RenderPair(torch.autograd.Function):
    @staticmethod
    def forward(ctx, student, teacher, geometry, backend, min_transmittance, options):
        densities = [backend.chunked_density(x, **options) for x in (student, teacher)]
        own, target, divergence, kept = backend.render_pair(
            (densities[1], teacher), (densities[0], student), geometry, min_transmittance
        )
        ctx.save_for_backward(densities[0], student, *own, *kept)
        ctx.set_materialize_grads(False)
        ctx.static = geometry, min_transmittance
        ctx.backend, ctx.options = backend, options
        ctx.mark_non_differentiable(densities[1], *target)
        return densities[0], *own, densities[1], *target, divergence

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_density, *grads):
        density, logits, *saved = ctx.saved_tensors
        outputs, kept = saved[:3], saved[3:]
        grad_kl = grads[-1]
        grads, outputs, values = _asked(grads[:3], outputs, logits)
        own, grad = ctx.backend.render_pair_backward(
            grads,
            None if grad_kl is None else grad_kl.contiguous(),
            outputs,
            kept,
            density,
            values,
            *ctx.static,
        )
        if grad.shape != logits.shape:
            grad = torch.zeros_like(logits)
        if grad_density is not None:
            own += grad_density
        ctx.backend.add_density_gradient_(grad, own, density, logits, **ctx.options)
        return grad, None, None, None, None, None


def _asked(grads, outputs, values):
    """Contiguous gradients of the outputs of ``render``, zeros where there is
    none, these outputs and the values; both without channels where nothing
    asks for the gradient of the accumulated values."""
    if grads[1] is None:
        values = values[:, :0]
        outputs = outputs[0], outputs[1][:, :0], outputs[2]
    grads = tuple(
        torch.zeros_like(output) if grad is None else grad.contiguous()
        for grad, output in zip(grads, outputs)
    )
    return grads, outputs, values


class _RayKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx, teacher, student, geometry, backend, min_transmittance):
        ctx.save_for_backward(teacher, student)
        ctx.static = geometry, min_transmittance
        ctx.backend = backend
        return backend.ray_kl(teacher, student, geometry, min_transmittance)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        grad = ctx.backend.ray_kl_backward(grad.contiguous(), *ctx.saved_tensors, *ctx.static)
        return None, grad, None, None, None
