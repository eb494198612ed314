"""Hard voxels: the first points of the first cells, as DAOcc's.

P points, V voxels.
"""

from typing import NamedTuple, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.models.occ_teacher.sparse_conv import ActiveCells, SparseVolume
from radocc_plugin.registry import MODELS


class HardVoxels(NamedTuple):
    """The voxels of one cloud, in the order of their cells.

    Args:
        keys: Flat index (x, y, z) of each cell in the grid, ascending, (V,).
        features: Mean of the kept points, shape (V, 5).
        counts: Number of kept points, shape (V,).
        order: Rows of the above in the order of the cloud, shape (V,).
    """

    keys: Tensor
    features: Tensor
    counts: Tensor
    order: Tensor


@MODELS.register_module()
class HardVoxelMean(BaseModule):
    """Mean of the first points of each voxel; it has no parameters.

    In the order of the cloud, a point in a new cell opens a voxel while there
    are fewer than ``max_voxels``, and a voxel keeps its first
    ``max_num_points``. Other points are dropped.

    Args:
        point_cloud_range: ``(x0, y0, z0, x1, y1, z1)`` in metres.
        voxel_size: Edges in x, y, z in metres.
        max_num_points: Points that count in a voxel.
        max_voxels: Voxels of a cloud in training and in testing.
        round_to_half: Whether points are rounded to float16 first, 3 cm at
            the border. The published runs were, in training and testing.

    Raises:
        ValueError: If the voxels do not fill the range.

    AlphaPlusTT/DAOcc 6846432b.
    """

    def __init__(
        self,
        point_cloud_range: Sequence[float],
        voxel_size: Sequence[float],
        max_num_points: int = 10,
        max_voxels: Tuple[int, int] = (120000, 160000),
        round_to_half: bool = False,
    ) -> None:
        super().__init__()
        low, high = point_cloud_range[:3], point_cloud_range[3:]
        cells = [(b - a) / s for a, b, s in zip(low, high, voxel_size)]
        if any(abs(n - round(n)) > 1e-4 for n in cells):
            raise ValueError(
                f'voxel_size {tuple(voxel_size)} does not '
                f'divide point_cloud_range {point_cloud_range}'
            )
        self.grid = VoxelGrid(point_cloud_range, [round(n) for n in cells])
        self.max_num_points = max_num_points
        self.max_voxels = tuple(max_voxels)
        self.round_to_half = round_to_half

    def forward(self, points: Sequence[Tensor]) -> SparseVolume:
        """Occupied voxels of B clouds.

        Args:
            points: x, y, z in metres of the augmented LiDAR frame, intensity
                in [0, 255], seconds before the keyframe, (P, 5) each.

        Returns:
            Features (V, 5) in a volume (X, Y, Z + 1); its last layer, which
            is empty, makes the sizes of the encoder's stages fit.

        Raises:
            ValueError: If a cloud has another shape.
        """
        x, y, z = self.grid.shape
        with torch.autocast(points[0].device.type, enabled=False):
            clouds = [self.voxelise(cloud) for cloud in points]
        keys = [
            (sample * x * y + cloud.keys // z) * (z + 1) + cloud.keys % z
            for sample, cloud in enumerate(clouds)
        ]
        return SparseVolume(
            torch.cat([cloud.features for cloud in clouds]),
            ActiveCells(torch.cat(keys), (x, y, z + 1), len(points)),
        )

    @torch.no_grad()
    def voxelise(self, points: Tensor) -> HardVoxels:
        """The voxels of one cloud (P, 5)."""
        if points.dim() != 2 or points.shape[1] != 5:
            raise ValueError(
                f'points take shape (P, 5): x, y, z, intensity, lag; got {tuple(points.shape)}'
            )
        points = points.half().float() if self.round_to_half else points.float()
        cells, inside = self.grid.index(points[:, :3])
        inside = inside.nonzero()[:, 0]  # one wait for the device in place of two
        points = points[inside]
        voxel_of, order = self.grid.ravel(cells[inside]).sort(stable=True)
        keys, counts = voxel_of.unique_consecutive(return_counts=True)
        starts = counts.cumsum(0) - counts
        opened = order[starts].argsort()  # rows in the order of the cloud
        limit = self.max_voxels[0 if self.training else 1]
        if len(keys) > limit:
            kept = torch.zeros_like(keys, dtype=torch.bool)
            kept[opened[:limit]] = True
            order = order[kept.repeat_interleave(counts, output_size=len(order))]
            keys, counts = keys[kept], counts[kept]
            starts = counts.cumsum(0) - counts
            opened = order[starts].argsort()
        place = torch.arange(len(order), device=order.device)
        rank = place - starts.repeat_interleave(counts, output_size=len(order))
        counts = counts.clamp(max=self.max_num_points)
        # A mean over bags of points: unlike index_add, deterministic on CUDA.
        features = F.embedding_bag(
            order[rank < self.max_num_points], points, counts.cumsum(0) - counts, mode='mean'
        )
        return HardVoxels(keys, features, counts, opened)
