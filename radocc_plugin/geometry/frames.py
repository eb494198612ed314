"""Rigid and affine transforms; a matrix ``a2b`` takes points of a to b."""

from typing import Optional

import torch
from torch import Tensor


def transform_points(a2b: Tensor, points: Tensor) -> Tensor:
    """Points of frame a in frame b.

    Args:
        a2b: Homogeneous transforms, shape (..., 4, 4).
        points: Points, shape (..., P, 3), same leading dimensions.

    Returns:
        Points in frame b, shape (..., P, 3); computed in float64, which
        autocast and TF32 leave alone.
    """
    matrix = a2b.double()
    moved = points.double() @ matrix[..., :3, :3].transpose(-1, -2)
    return (moved + matrix[..., None, :3, 3]).to(points.dtype)


def to_homogeneous(matrix: Tensor) -> Tensor:
    """A (..., 3, 3) matrix as the linear part of a (..., 4, 4) one."""
    out = matrix.new_zeros(*matrix.shape[:-2], 4, 4)
    out[..., :3, :3] = matrix
    out[..., 3, 3] = 1
    return out


def invert(a2b: Tensor) -> Tensor:
    """``b2a``, inverted in float64 and returned in the dtype of ``a2b``.

    Not finite where there is no inverse: to look would wait for the GPU.
    """
    return torch.linalg.inv_ex(a2b.double()).inverse.to(a2b.dtype)


def upload(values: Tensor, device: Optional[torch.device]) -> Tensor:
    """A CPU tensor on a device, without waiting for a GPU."""
    if device is None or torch.device(device).type != 'cuda':
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
