"""Where lifted image features go: frustum points, their voxels, and a cache.

B batch, N cameras, D depth bins, H W feature map, X Y Z grid, K kept points.
"""

from functools import lru_cache
from typing import NamedTuple, Tuple

import torch
from torch import Tensor

from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.models.lift_splat.depth import DepthBins
from radocc_plugin.models.lift_splat.view_geometry import ViewGeometry


class LiftPlan(NamedTuple):
    """Which frustum points each voxel of a batch sums up.

    Args:
        point_of: Flat index (B, N, D, H, W) of each kept point, voxel by
            voxel, shape (K,).
        offsets: First kept point of each voxel (B, Z, Y, X), flat.
    """

    point_of: Tensor
    offsets: Tensor


# A rig is met again by the teacher that distils into a student, and at test
# wherever cameras fire in the same pose; a training step draws new ones.
@lru_cache(maxsize=4)
@torch.inference_mode(False)  # a plan made in testing serves in training too
def plan_lift(
    geometry: ViewGeometry,
    depth_bins: DepthBins,
    feature_size: Tuple[int, int],
    downsample: int,
    grid: VoxelGrid,
    truncate: bool,
    device: torch.device,
) -> LiftPlan:
    """The voxels of all frustum points, computed once per rig.

    Depends on calibration and augmentation only; the last few plans are kept,
    and shared by all view transformers of one configuration.

    Args:
        geometry: Calibration of the batch.
        depth_bins: The depth bins.
        feature_size: Height and width of the feature map.
        downsample: Stride of the feature map in pixels.
        grid: The voxel grid.
        truncate: See ``assign_voxels``.
        device: Where the plan is needed.
    """
    frustum = make_frustum(depth_bins, feature_size, downsample).to(device)
    points = geometry.lift(frustum)
    point_of, voxel_of = assign_voxels(points, grid, truncate)
    voxels = torch.arange(len(points) * grid.num_voxels, device=device)
    return LiftPlan(point_of, torch.searchsorted(voxel_of, voxels))


def make_frustum(depth_bins: DepthBins, feature_size: Tuple[int, int], downsample: int) -> Tensor:
    """Pixel and depth of every frustum point.

    Pixels run from the first to the last of the image end to end, as
    published, not through the centres of the feature cells.

    Args:
        depth_bins: The depth bins.
        feature_size: Height and width of the feature map.
        downsample: Stride of the feature map in pixels.

    Returns:
        (u, v, d), shape (D, H, W, 3).
    """
    height, width = feature_size
    rows = torch.linspace(0, height * downsample - 1, height)
    columns = torch.linspace(0, width * downsample - 1, width)
    d, v, u = torch.meshgrid(depth_bins.depths(), rows, columns, indexing='ij')
    return torch.stack([u, v, d], dim=-1)


def assign_voxels(points: Tensor, grid: VoxelGrid, truncate: bool = True) -> Tuple[Tensor, Tensor]:
    """The voxel of each point that falls into the grid.

    Args:
        points: Metric points in the grid's frame, shape (B, ..., 3).
        grid: The voxel grid.
        truncate: Whether coordinates are truncated toward zero, so that points
            up to one cell below a lower bound fall into cell 0, as published;
            otherwise they are dropped.

    Returns:
        Flat indices of the kept points and their flat voxel indices in the
        order (B, Z, Y, X), sorted by voxel; shape (K,) each.
    """
    cells = (points - points.new_tensor(grid.minimum)) / points.new_tensor(grid.voxel_size)
    cells = (cells if truncate else cells.floor()).long()
    upper = torch.as_tensor(grid.shape, device=points.device)
    inside = ((cells >= 0) & (cells < upper)).all(-1)
    batch = torch.arange(len(points), device=points.device)
    batch = batch.view(-1, *[1] * (points.dim() - 2))
    nx, ny, nz = grid.shape
    x, y, z = cells.unbind(-1)
    voxels = ((batch * nz + z) * ny + y) * nx + x
    kept = inside.flatten().nonzero().squeeze(1)
    voxel_of, order = voxels.flatten()[kept].sort(stable=True)
    return kept[order], voxel_of
