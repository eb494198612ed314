"""Backend ``triton``: fused kernels that walk the rays on the GPU.

A program walks a block of rays in step. The forward pass stores nothing of
the size of the crossings; the backward pass walks again and knows what lies
behind a crossing as the ray's total, from the forward outputs, less what came
before. The light of the voxels is summed in integers, the same in every run;
gradients by float atomics: their last bits differ from run to run.
"""

import contextlib
import importlib.util
import os
import shutil
import warnings
from typing import Optional

import torch
from torch import Tensor

from radocc_plugin.rendering import density as plain
from radocc_plugin.rendering.density import class_index

if importlib.util.find_spec('triton') is not None:
    from radocc_plugin.rendering.backends import triton_kernels as kernels

# Rays a program of one warp; measured on an H200, see docs/rendering.md.
BLOCKS = dict(voxel_light=32, render=32, render_backward=2, ray_kl=32, ray_kl_backward=32)
VOXEL_BLOCK, LIGHT_BLOCK = 32, 512


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
        raise ImportError(
            "backend 'triton' needs the package triton; pip install triton, or take backend 'torch'"
        )
    if device.type != 'cuda' and os.environ.get('TRITON_INTERPRET') != '1':
        raise ValueError(
            f"backend 'triton' runs on CUDA, the volumes are on "
            f"{device}; take 'auto', 'torch' or 'cpp'"
        )


def _launch(kernel, programs: int, *arguments, **constants) -> None:
    device = arguments[0].device
    for argument in arguments:
        if torch.is_tensor(argument) and argument.dtype == torch.float64:
            raise ValueError(
                f"backend 'triton' takes float32, got {argument.dtype}; take 'torch' or 'reference'"
            )
    if programs:
        with torch.cuda.device(device) if device.type == 'cuda' else contextlib.nullcontext():
            kernel[(programs,)](*arguments, num_warps=1, **constants)


def _walk(name: str, geometry, stop: float, *tensors, **constants) -> None:
    """Runs a kernel on all rays."""
    rays, grid = geometry.rays, geometry.grid
    block = BLOCKS[name]
    names = ('X0', 'Y0', 'Z0', 'X1', 'Y1', 'Z1', 'NX', 'NY', 'NZ')
    _launch(
        getattr(kernels, name),
        -(-len(rays) // block),
        *tensors,
        rays.origins.float().contiguous(),
        rays.directions.float().contiguous(),
        rays.sample.contiguous(),
        len(rays),
        float(stop),
        **constants,
        BLOCK=block,
        **dict(zip(names, (*grid.point_cloud_range, *grid.shape))),
    )


def _channels(values: Tensor) -> dict:
    channels = values.shape[1]
    return dict(C=channels, C_PADDED=1 << max(channels - 1, 0).bit_length())


def chunked_density(logits, voxel_size, free_index, mode):
    """See ``density.chunked_density``; in one pass."""
    if mode == 'softplus':
        return plain.chunked_density(logits, voxel_size, free_index, mode)
    density = logits.new_empty(len(logits))
    _launch(
        kernels.free_density,
        -(-len(logits) // VOXEL_BLOCK),
        logits,
        density,
        len(logits),
        1 / voxel_size,
        BLOCK=VOXEL_BLOCK,
        FREE=class_index(free_index, logits.shape[1]),
        **_channels(logits),
    )
    return density


def add_density_gradient_(grad_logits, grad_density, density, logits, voxel_size, free_index, mode):
    """See ``density.add_density_gradient_``; leaves voxels without a gradient
    out."""
    if mode == 'softplus':
        plain.add_density_gradient_(
            grad_logits, grad_density, density, logits, voxel_size, free_index, mode
        )
        return
    _launch(
        kernels.add_free_density_gradient,
        -(-len(logits) // VOXEL_BLOCK),
        grad_logits,
        grad_density,
        logits,
        len(logits),
        1 / voxel_size,
        BLOCK=VOXEL_BLOCK,
        FREE=class_index(free_index, logits.shape[1]),
        **_channels(logits),
    )


def voxel_light(density, geometry, min_transmittance):
    """See ``ops.voxel_light``."""
    units = density.new_zeros(2, len(density), dtype=torch.int64)
    _walk('voxel_light', geometry, min_transmittance, density, *units)
    entered, ended = torch.empty_like(density), torch.empty_like(density)
    _launch(
        kernels.light_of_units,
        -(-len(density) // LIGHT_BLOCK),
        units,
        density,
        entered,
        ended,
        len(density),
        BLOCK=LIGHT_BLOCK,
    )
    return entered, ended


def render(density, values, geometry, min_transmittance):
    """See ``ops.render``."""
    number = len(geometry.rays)
    depth = density.new_empty(number)
    no_hit = density.new_empty(number)
    rendered = density.new_empty(number, values.shape[1])
    _walk(
        'render',
        geometry,
        min_transmittance,
        density,
        values,
        depth,
        rendered,
        no_hit,
        **_channels(values),
    )
    return depth, rendered, no_hit


def render_backward(grads, outputs, density, values, geometry, min_transmittance):
    """Gradients of the density, (V,), and of the values, (V, C)."""
    _say_that_sums_differ()
    grad_depth, grad_rendered, grad_no_hit = grads
    depth, rendered, no_hit = outputs
    # What a ray is worth to the loss; the kernel takes off what it passed.
    total = (grad_rendered * rendered).sum(1)
    total += grad_depth * depth + grad_no_hit * no_hit
    grad_density = torch.zeros_like(density)
    grad_values = torch.zeros_like(values)
    _walk(
        'render_backward',
        geometry,
        min_transmittance,
        density,
        values,
        grad_depth,
        grad_rendered,
        total,
        grad_density,
        grad_values,
        **_channels(values),
    )
    return grad_density, grad_values


def ray_kl(teacher_density, student_density, geometry, min_transmittance):
    """See ``ops.ray_kl``."""
    divergence = student_density.new_empty(len(geometry.rays))
    _walk('ray_kl', geometry, min_transmittance, teacher_density, student_density, divergence)
    return divergence


def ray_kl_backward(grad, teacher_density, student_density, geometry, min_transmittance):
    """Gradient of the student's density, (V,)."""
    _say_that_sums_differ()
    grad_density = torch.zeros_like(student_density)
    _walk(
        'ray_kl_backward',
        geometry,
        min_transmittance,
        teacher_density,
        student_density,
        grad,
        grad_density,
    )
    return grad_density


def _say_that_sums_differ() -> None:
    """As torch's own operations do in deterministic mode."""
    if not torch.are_deterministic_algorithms_enabled():
        return
    message = (
        "backend 'triton' sums gradients in any order, which "
        'torch.use_deterministic_algorithms(True) forbids; take '
        "backend 'auto' or 'torch'"
    )
    if torch.is_deterministic_algorithms_warn_only_enabled():
        warnings.warn(message, stacklevel=2)
    else:
        raise RuntimeError(message)


def render_pair(teacher, student, geometry, min_transmittance):
    """See ``ops.render_logits_pair``: one launch for each part."""
    return (
        render(*student, geometry, min_transmittance),
        render(*teacher, geometry, min_transmittance),
        ray_kl(teacher[0], student[0], geometry, min_transmittance),
        [teacher[0]],
    )


def render_pair_backward(
    grads, grad_kl, outputs, kept, density, values, geometry, min_transmittance
):
    """Gradients of the student's density, (V,), and values, (V, C)."""
    grad_density, grad_values = render_backward(
        grads, outputs, density, values, geometry, min_transmittance
    )
    if grad_kl is not None:
        grad_density += ray_kl_backward(grad_kl, *kept, density, geometry, min_transmittance)
    return grad_density, grad_values
