"""The RadOcc author's renderer in plain autograd.

Uniform samples and trilinear interpolation, in dense arrays: the oracle of
parity with the author's code and the baseline of the benchmarks. Training
renders exactly, see ``ops``.

R rays, S samples a ray, V voxels, C channels.
"""

import math
from typing import NamedTuple, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.rendering.render_geometry import RenderGeometry


class AuthorRender(NamedTuple):
    """Accumulated projection depth in metres, (R,); accumulated values, (R,
    C); no-hit probability, (R,); weights of the samples, (R, S)."""

    depth: Tensor
    values: Tensor
    no_hit: Tensor
    weights: Tensor


def author_samples(grid: VoxelGrid, stepsize: float = 0.5) -> Tuple[int, float]:
    """Number of samples of a ray, and their distance in metres of projection
    depth: ``stepsize`` voxels, as many as half the grid's diagonal takes (287
    of 0.2 m for Occ3D's grid)."""
    diagonal = math.hypot(*(n / 2 + 1 for n in grid.shape))
    edge = math.prod(grid.voxel_size) ** (1 / 3)
    return int(diagonal / stepsize) + 1, stepsize * edge


def render_like_author(
    density_logits: Tensor,
    values: Tensor,
    geometry: RenderGeometry,
    *,
    stepsize: float = 0.5,
    align_corners: bool = True,
) -> AuthorRender:
    """Renders a volume as the author's development code does.

    ``alpha = 1 - exp(-softplus(interpolated density logit) * step)``; samples
    outside the grid have alpha 0; the step is that of the projection depth,
    not of the metric length.

    Args:
        density_logits: Raw density, such as the negative free logit, (V,).
        values: What is accumulated, (V, C).
        geometry: Rays, sample by sample, and grid.
        stepsize: Distance of the samples in voxels.
        align_corners: True (the author): the first and last voxel centres
            lie on the grid's bounds, which stretches the volume by n / (n -
            1).

    ``nerf_head.py`` @5b4538f7 of the author, ``render_type='density'``.
    """
    grid, rays = geometry.grid, geometry.rays
    if geometry.num_volumes > 1:
        volumes = zip(density_logits.split(grid.num_voxels), values.split(grid.num_voxels))
        samples = (
            render_like_author(
                *volume,
                RenderGeometry(rays.select(rays.sample == i), grid, 1),
                stepsize=stepsize,
                align_corners=align_corners,
            )
            for i, volume in enumerate(volumes)
        )
        return AuthorRender(*(torch.cat(parts) for parts in zip(*samples)))
    number, step = author_samples(grid, stepsize)
    low, high, origins, directions = (
        torch.as_tensor(x, dtype=values.dtype, device=values.device)
        for x in (grid.minimum, grid.maximum, rays.origins, rays.directions)
    )
    t = torch.arange(number, device=values.device) * step
    points = origins[:, None] + directions[:, None] * t[:, None]
    inside = ((points >= low) & (points <= high)).all(-1)
    # grid_sample wants (z, y, x) for a volume of (X, Y, Z).
    where = (2 * (points[inside] - low) / (high - low) - 1).flip(-1)

    def sample(flat: Tensor) -> Tensor:
        """(V, C) -> dense (R, S, C), 0 outside the grid."""
        volume = flat.view(*grid.shape, -1).permute(3, 0, 1, 2)
        sampled = F.grid_sample(volume[None], where[None, None, None], align_corners=align_corners)[
            0, :, 0, 0
        ]
        return sampled.new_zeros(*inside.shape, len(volume)).index_put((inside,), sampled.t())

    density = F.softplus(sample(density_logits[:, None])[..., 0]) * inside
    alpha = 1 - torch.exp(-density * step)
    left = torch.cumprod((1 - alpha).clamp_min(1e-10), dim=1)
    left = torch.cat((torch.ones_like(left[:, :1]), left), dim=1)
    weights = alpha * left[:, :-1]
    return AuthorRender(
        (weights * t).sum(1), (weights[..., None] * sample(values)).sum(1), left[:, -1], weights
    )
