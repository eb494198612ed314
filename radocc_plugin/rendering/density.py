"""Optical density of a voxel, from occupancy logits or labels.

V voxels, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Densities that follow from occupancy logits alone.
LOGIT_DENSITIES = ('free_probability', 'softplus')
DENSITIES = (*LOGIT_DENSITIES, 'head')

# Voxels at a time where (V, C) temporaries would not stay in a CPU's cache.
_CHUNK = 2**14


def density_from_logits(
    logits: Tensor, voxel_size: float, free_index: int = -1, mode: str = 'free_probability'
) -> Tensor:
    """Density of each voxel in 1/m, differentiable.

    - ``free_probability`` (default): ``-log p(free) / voxel_size``; light
      crosses one voxel edge with the probability that the voxel is free. A
      calibrated softmax thus renders to calibrated terminations.
    - ``softplus``: ``softplus(-free logit)``, the density of the author's
      renderer (``nerf_head.py`` @5b4538f7), which ignores the other logits.

    Args:
        logits: Occupancy logits, shape (..., C).
        voxel_size: Edge of a voxel in metres.
        free_index: Class of free space.
        mode: One of ``LOGIT_DENSITIES``.

    Returns:
        Density, >= 0, shape (...), at least float32.

    Raises:
        ValueError: If ``mode`` is unknown.
    """
    check_logit_density(mode)
    if logits.dtype != torch.float64:
        logits = logits.float()
    if mode == 'free_probability':
        return -F.log_softmax(logits, dim=-1)[..., free_index] / voxel_size
    return F.softplus(-logits[..., free_index])


def density_from_head(density_logits: Tensor) -> Tensor:
    """Density in 1/m of a density head of its own: its softplus."""
    if density_logits.dtype != torch.float64:
        density_logits = density_logits.float()
    return F.softplus(density_logits)


def density_from_labels(labels: Tensor, voxel_size: float, free_class: int) -> Tensor:
    """Density of a label volume in 1/m: ``2 / voxel_size`` where occupied.

    The mean free path is then half a voxel, so that the expected depth of a
    solid is the centre of its first voxel; an infinite density would end
    every ray on the voxel's face, half a voxel too early.
    """
    return (labels != free_class).float() * (2 / voxel_size)


def check_logit_density(mode: str) -> None:
    """Raises ValueError unless ``mode`` is one of ``LOGIT_DENSITIES``."""
    if mode not in LOGIT_DENSITIES:
        raise ValueError(f'density takes one of {LOGIT_DENSITIES}, got {mode!r}')


def class_index(index: int, num_classes: int) -> int:
    """A class index from 0 on; raises ValueError if there is no such class."""
    if not -num_classes <= index < num_classes:
        raise ValueError(f'free_index takes one of {num_classes} classes, got {index}')
    return index % num_classes


@torch.no_grad()
def chunked_density(logits: Tensor, voxel_size: float, free_index: int, mode: str) -> Tensor:
    """``density_from_logits`` of (V, C) without a graph and without (V, C)
    temporaries, (V,)."""
    if mode == 'softplus':
        return density_from_logits(logits, voxel_size, free_index, mode)
    density = logits.new_empty(len(logits))
    for out, part in zip(density.split(_chunk(logits)), logits.split(_chunk(logits))):
        out.copy_(density_from_logits(part, voxel_size, free_index, mode))
    return density


@torch.no_grad()
def add_density_gradient_(
    grad_logits: Tensor,
    grad_density: Tensor,
    density: Tensor,
    logits: Tensor,
    voxel_size: float,
    free_index: int,
    mode: str,
) -> None:
    """Adds to (V, C), in place, what (V,) means for the logits.

    ``free_probability``: ``(softmax - one hot of free) / voxel_size``;
    ``softplus``: ``-sigmoid(-free logit) = e^-density - 1`` at the free
    logit.
    """
    if mode == 'softplus':
        slope = density.neg().expm1_()
        grad_logits[:, free_index].addcmul_(grad_density, slope)
        return
    scale = grad_density / voxel_size
    size = _chunk(logits)
    for out, part, factor in zip(grad_logits.split(size), logits.split(size), scale.split(size)):
        out.addcmul_(part.softmax(-1), factor[:, None])
    grad_logits[:, free_index] -= scale


def _chunk(logits: Tensor) -> int:
    return _CHUNK if logits.device.type == 'cpu' else max(len(logits), 1)
