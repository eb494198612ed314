"""Proof of the geometry: a voxelised sweep renders where its points are."""

import torch
from torch import Tensor

from radocc_plugin.geometry import Cameras, VoxelGrid, rays_through, traverse
from radocc_plugin.rendering.density import density_from_labels
from radocc_plugin.rendering.functional import expected_depth, crossing_transmittance


def sweep_depth_difference(
    points: Tensor, pixels: Tensor, depth: Tensor, cameras: Cameras, grid: VoxelGrid
) -> Tensor:
    """Rendered minus projected depth at every LiDAR point that a camera sees.

    The points fill a label volume, and a ray through the pixel of each point
    is rendered: it should end at the point. Pixels and depths come from the
    caller's own projection (LiDAR to camera, past the ego frame), so frames,
    matrix directions, voxel order and ray parameter must all be right for
    the difference to be about a voxel. Points that the volume hides from the
    camera, whose centre is not the LiDAR's, differ by more.

    Args:
        points: LiDAR points in the augmented ego frame without those of the
            ego vehicle, metres, (P, 3).
        pixels: Their (u, v) in each raw image, (N, P, 2).
        depth: Their projection depth in metres, <= 0 behind, (N, P).
        cameras: The cameras, batch size 1.
        grid: Voxel grid of the volume.

    Returns:
        Differences in metres, (R,), over all pairs of a point in the grid and
        a camera that sees it.
    """
    cells, inside = grid.index(points)
    labels = torch.ones(grid.num_voxels, dtype=torch.uint8, device=points.device)
    labels[grid.ravel(cells[inside])] = 0

    height, width = cameras.image_size
    seen = (
        inside
        & (depth > 0.5)
        & (pixels >= 0).all(-1)
        & (pixels[..., 0] < width)
        & (pixels[..., 1] < height)
    )
    camera = seen.nonzero()[:, 0]
    origins, directions = rays_through(cameras, torch.zeros_like(camera), camera, pixels[seen])
    crossings = traverse(origins, directions, grid)
    density = density_from_labels(labels, grid.voxel_size[0], free_class=1)
    optical_depth = density[crossings.voxel] * crossings.length
    _, no_hit = crossing_transmittance(optical_depth, crossings.offsets)
    rendered = expected_depth(optical_depth, crossings.near, crossings.far, crossings.offsets)
    hit = no_hit < 0.5
    return rendered[hit] / (1 - no_hit[hit]) - depth[seen][hit]
