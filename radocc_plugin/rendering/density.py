"""Optical density of a voxel from its occupancy logits."""
import torch.nn.functional as F
from torch import Tensor

DENSITIES = ('free_probability', 'softplus')


def density_from_logits(logits: Tensor,
                        voxel_size: float,
                        free_index: int = -1,
                        mode: str = 'free_probability') -> Tensor:
    """Density of each voxel in 1/m.

    - ``free_probability`` (default): ``-log p(free) / voxel_size``; light
      crosses one voxel edge with the probability that the voxel is free. A
      calibrated softmax thus renders to calibrated terminations.
    - ``softplus``: ``softplus(-free logit)``, the density of the author's
      renderer (``nerf_head.py`` @5b4538f7), which ignores the other logits.

    Args:
        logits: Occupancy logits, shape (..., C).
        voxel_size: Edge of a voxel in metres.
        free_index: Class of free space.
        mode: One of ``DENSITIES``.

    Returns:
        Density, >= 0, shape (...), float32.

    Raises:
        ValueError: If ``mode`` is unknown.
    """
    logits = logits.float()
    if mode == 'free_probability':
        return -F.log_softmax(logits, dim=-1)[..., free_index] / voxel_size
    if mode == 'softplus':
        return F.softplus(-logits[..., free_index])
    raise ValueError(f'density takes one of {DENSITIES}, got {mode!r}')


def density_from_labels(labels: Tensor, voxel_size: float,
                        free_class: int) -> Tensor:
    """Density of a label volume in 1/m: ``2 / voxel_size`` where occupied.

    The mean free path is then half a voxel, so that the expected depth of a
    solid is the centre of its first voxel; an infinite density would end
    every ray on the voxel's face, half a voxel too early.
    """
    return (labels != free_class).float() * (2 / voxel_size)
