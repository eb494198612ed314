"""Where the pillars of the bird's-eye view are seen in the images.

B batch, N cameras, Q = Y * X cells of the bird's-eye view, A anchors a pillar.
"""

from typing import NamedTuple, Sequence, Tuple

import torch
from torch import Tensor

from radocc_plugin.geometry import VoxelGrid, transform_points
from radocc_plugin.models.lift_splat import DepthBins, ViewGeometry

EPS = 1e-5  # of the image's border and of depth, as published


class Anchors(NamedTuple):
    """The anchors of all pillars in all cameras.

    Args:
        positions: (u, v) on the augmented image, which spans [0, 1], shape
            (B, N, Q, A, 2).
        seen: Whether the camera sees the anchor, shape (B, N, Q, A).
        depth_bins: Depth bin of the anchor, that of the nearest end for
            depths outside of the bins, int64, shape (B, N, Q, A).
    """

    positions: Tensor
    seen: Tensor
    depth_bins: Tensor


def pillar_anchors(grid: VoxelGrid, anchors_z: Sequence[float], device: torch.device) -> Tensor:
    """Points above the centres of the BEV cells, shape (Q, A, 3), metres.

    Args:
        grid: The voxel grid; its cells in z are not used.
        anchors_z: ``(lower, upper, step)`` of a pillar's slices, each of which
            has an anchor in its middle.
        device: Where the points are needed.
    """
    lower, upper, step = anchors_z
    slices = round((upper - lower) / step)
    heights = lower + (torch.arange(slices, device=device) + 0.5) * step
    x, y = (
        grid.minimum[axis]
        + (torch.arange(grid.shape[axis], device=device) + 0.5) * grid.voxel_size[axis]
        for axis in range(2)
    )
    y, x, z = torch.meshgrid(y, x, heights, indexing='ij')
    return torch.stack([x, y, z], dim=-1).flatten(0, 1)


def project_anchors(
    points: Tensor, geometry: ViewGeometry, image_size: Tuple[int, int], depth_bins: DepthBins
) -> Anchors:
    """Projects the anchors of the augmented-ego frame into all cameras.

    Args:
        points: Shape (Q, A, 3); projected in float64.
        geometry: Calibration of the batch.
        image_size: Height and width of the augmented images.
        depth_bins: The depth bins.
    """
    height, width = image_size
    points = points.double()
    ego2cam = torch.linalg.inv(geometry.cam2augmented_ego())
    ego2img = (geometry.cam2img @ ego2cam[..., :3, :]).to(points.device)
    pixel_map = geometry.img_aug_mat[..., :2, [0, 1, 3]].to(points)
    # (B, N, Q * A, 3): pixels of the raw image, times depth
    scaled = transform_points(ego2img, points.flatten(0, 1)[None, None])
    depth = scaled[..., 2]
    raw = scaled[..., :2] / depth.clamp(min=EPS)[..., None]
    pixels = raw @ pixel_map[..., :2].transpose(-1, -2) + pixel_map[..., None, :, 2]
    positions = pixels / pixels.new_tensor([width, height])
    inside = (positions > EPS) & (positions < 1 - EPS)
    seen = inside.all(-1) & (depth > EPS)
    bins = depth_bins.position(depth).floor().clamp(0, depth_bins.count - 1).long()
    return Anchors(
        *(values.unflatten(2, points.shape[:2]) for values in (positions.float(), seen, bins))
    )
