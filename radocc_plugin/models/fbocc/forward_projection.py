"""Forward projection: image features lifted by depth into a volume."""

from typing import Dict, Sequence

import torch
from torch import Tensor, nn

from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.models.lift_splat import DepthBins, ViewGeometry, bev_pool
from radocc_plugin.models.lift_splat.lift import plan_lift


class ForwardProjection(nn.Module):
    """Lift-splat of context features into a voxel volume.

    Args:
        grid_config: ``x``, ``y``, ``z`` as (lower, upper, cell size) in metres
            of the augmented-ego frame and ``depth`` as (first, end, step).
        downsample: Stride of the image features.
        published_truncation: See ``assign_voxels`` of BEVDet-Occ.
    """

    def __init__(
        self,
        grid_config: Dict[str, Sequence[float]],
        downsample: int = 16,
        published_truncation: bool = True,
    ) -> None:
        super().__init__()
        lower, upper, size = ([grid_config[axis][i] for axis in 'xyz'] for i in range(3))
        counts = [round((high - low) / step) for low, high, step in zip(lower, upper, size)]
        self.grid = VoxelGrid([*lower, *upper], counts)
        self.depth_bins = DepthBins(*grid_config['depth'])
        self.downsample = downsample
        self.published_truncation = published_truncation
        # Checkpoints hold the grid; nothing is computed from these.
        size = torch.tensor(size)
        self.register_buffer('dx', size)
        self.register_buffer('bx', torch.tensor(lower) + size / 2)
        self.register_buffer('nx', torch.tensor(counts))

    def forward(self, depth: Tensor, context: Tensor, geometry: ViewGeometry) -> Tensor:
        """Sums features, weighted by depth, in the voxel that they fall into.

        Args:
            depth: Depth distributions, shape (B * N, D, H, W).
            context: Image features, shape (B * N, C, H, W).
            geometry: Calibration of the batch.

        Returns:
            Shape (B, C, Y, X, Z), float32, in the augmented-ego frame.
        """
        plan = plan_lift(
            geometry,
            self.depth_bins,
            tuple(depth.shape[-2:]),
            self.downsample,
            self.grid,
            self.published_truncation,
            depth.device,
        )
        nx, ny, nz = self.grid.shape
        voxels = bev_pool(depth, context, *plan)
        return voxels.unflatten(0, (-1, nz, ny, nx)).permute(0, 4, 2, 3, 1).contiguous()
