"""Backend ``triton``: fused kernels that walk the rays on the GPU.

A program walks a block of rays in step. The forward pass stores nothing of
the size of the crossings; the backward pass walks again and knows what lies
behind a crossing as the ray's total, from the forward outputs, less what came
before. Gradients of voxels are summed by atomics: their last bits differ from
run to run.
"""
import contextlib
import importlib.util
import os
import shutil
from typing import Optional

import torch
from torch import Tensor

from radocc_plugin.rendering.density import (  # noqa: F401 - of every backend
    add_density_gradient_, chunked_density)

if importlib.util.find_spec('triton') is not None:
    from radocc_plugin.rendering.backends import triton_kernels as kernels

BLOCK, NUM_WARPS = 32, 2
# Of the kernels without channels: a ray a thread.
RAY_BLOCK, RAY_WARPS = 32, 1
# Hits of a smaller weight give no values and no gradient to them.
CUT = 0.


def is_installed() -> bool:
    """Whether the package triton can be imported."""
    return importlib.util.find_spec('triton') is not None


def why_not_usable() -> Optional[str]:
    """What keeps Triton from compiling kernels here; None if nothing."""
    if not is_installed():
        return 'triton is not installed'
    compilers = (os.environ.get('CC'), 'gcc', 'clang', 'cc')
    if not any(shutil.which(c) for c in compilers if c):
        return 'triton finds no C compiler; install gcc or set CC'
    return None


def check_usable(device: torch.device) -> None:
    """Raises an error that says what is missing, if the backend can't run."""
    if not is_installed():
        raise ImportError("backend 'triton' needs the package triton; pip "
                          "install triton, or take backend 'torch'")
    if device.type != 'cuda' and os.environ.get('TRITON_INTERPRET') != '1':
        raise ValueError(f"backend 'triton' runs on CUDA, the volumes are on "
                         f"{device}; take 'auto', 'torch' or 'cpp'")


def _launch(kernel, geometry, stop: float, *tensors, block=RAY_BLOCK,
            num_warps=RAY_WARPS, **constants) -> None:
    for tensor in tensors:
        if tensor.dtype != torch.float32:
            raise ValueError("backend 'triton' takes float32, got "
                             f"{tensor.dtype}; take 'torch' or 'reference'")
    rays, grid = geometry.rays, geometry.grid
    number = len(rays)
    if not number:
        return
    device = rays.origins.device
    with (torch.cuda.device(device)
          if device.type == 'cuda' else contextlib.nullcontext()):
        kernel[(-(-number // block), )](
            *tensors,
            geometry.coherent_order,
            rays.origins.float().contiguous(),
            rays.directions.float().contiguous(),
            rays.sample.contiguous(),
            number,
            *grid.minimum,
            *grid.maximum,
            *grid.shape,
            stop,
            BLOCK=block,
            num_warps=num_warps,
            **constants)


def _channels(values: Tensor) -> dict:
    channels = values.shape[1]
    return dict(
        C=channels,
        C_PADDED=1 << (channels - 1).bit_length(),
        cut=CUT,
        block=BLOCK,
        num_warps=NUM_WARPS)


def render(density, values, geometry, min_transmittance):
    """See ``ops.render``."""
    number = len(geometry.rays)
    depth = density.new_zeros(number)
    no_hit = density.new_ones(number)
    rendered = density.new_zeros(number, values.shape[1])
    _launch(kernels.render, geometry, min_transmittance, density, values,
            depth, rendered, no_hit, **_channels(values))
    return depth, rendered, no_hit


def render_backward(grads, outputs, density, values, geometry,
                    min_transmittance):
    """Gradients of the density, (V,), and of the values, (V, C)."""
    grad_depth, grad_rendered, grad_no_hit = grads
    depth, rendered, no_hit = outputs
    # What a ray is worth to the loss; the kernel takes off what it passed.
    total = (grad_rendered * rendered).sum(1)
    total += grad_depth * depth + grad_no_hit * no_hit
    grad_density = torch.zeros_like(density)
    grad_values = torch.zeros_like(values)
    _launch(kernels.render_backward, geometry, min_transmittance, density,
            values, grad_depth, grad_rendered, total, grad_density,
            grad_values, **_channels(values))
    return grad_density, grad_values


def voxel_light(density, geometry, min_transmittance):
    """See ``ops.voxel_light``."""
    entered, ended = torch.zeros_like(density), torch.zeros_like(density)
    _launch(kernels.voxel_light, geometry, min_transmittance, density,
            entered, ended)
    return entered, ended


def ray_kl(teacher_density, student_density, geometry, min_transmittance):
    """See ``ops.ray_kl``."""
    divergence = student_density.new_zeros(len(geometry.rays))
    _launch(kernels.ray_kl, geometry, min_transmittance, teacher_density,
            student_density, divergence)
    return divergence


def ray_kl_backward(grad, teacher_density, student_density, geometry,
                    min_transmittance):
    """Gradient of the student's density, (V,)."""
    grad_density = torch.zeros_like(student_density)
    _launch(kernels.ray_kl_backward, geometry, min_transmittance,
            teacher_density, student_density, grad, grad_density)
    return grad_density


def render_pair(teacher, student, geometry, min_transmittance):
    """See ``ops.render_logits_pair``: one launch for each part."""
    return (render(*student, geometry, min_transmittance),
            render(*teacher, geometry, min_transmittance),
            ray_kl(teacher[0], student[0], geometry, min_transmittance),
            [teacher[0]])


def render_pair_backward(grads, grad_kl, outputs, kept, density, values,
                         geometry, min_transmittance):
    """Gradients of the student's density, (V,), and values, (V, C)."""
    grad_density, grad_values = render_backward(
        grads, outputs, density, values, geometry, min_transmittance)
    grad_density += ray_kl_backward(grad_kl, *kept, density, geometry,
                                    min_transmittance)
    return grad_density, grad_values
