"""LiDAR points as voxel features."""

from typing import Sequence, Tuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.models.occ_teacher.sparse_conv import ActiveCells, SparseVolume
from radocc_plugin.registry import MODELS

# offset from the voxel's centre in voxels (3), intensity in [0, 1],
# seconds before the keyframe, log(1 + number of points)
VOXEL_FEATURES = 6


class _VoxelEncoder(BaseModule):
    """What the voxel encoders share; they have no parameters.

    Every point counts (no cap on points or voxels), and points are summed in
    their order in the cloud, so the result is the same in every run on CPU
    and CUDA.

    Args:
        point_cloud_range: ``(x0, y0, z0, x1, y1, z1)`` in metres of the
            augmented-ego frame.
        voxel_size: Edge of a voxel in metres.
    """

    out_channels = VOXEL_FEATURES

    def __init__(self, point_cloud_range: Sequence[float], voxel_size: float) -> None:
        super().__init__()
        self.grid = VoxelGrid.from_voxel_size(point_cloud_range, voxel_size)


@MODELS.register_module()
class VoxelMean(_VoxelEncoder):
    """Mean of the points of each voxel on a dense grid.

    Every point counts (no cap); see ``SparseVoxelMean`` for grids of which
    most is empty. Arguments ``point_cloud_range`` and ``voxel_size``.
    """

    def forward(self, points: Sequence[Tensor]) -> Tensor:
        """Voxel features of B clouds.

        Args:
            points: x, y, z in metres, intensity in [0, 255], seconds before
                the keyframe, shape (P, 5) each.

        Returns:
            Shape (B, 6, Z, Y, X), float32; zero in empty voxels.
        """
        return voxelise(points, self.grid).dense()


@MODELS.register_module()
class SparseVoxelMean(_VoxelEncoder):
    """Mean of the points of each occupied voxel, for ``OccSparseEncoder``.

    Arguments and features as ``VoxelMean``.
    """

    def forward(self, points: Sequence[Tensor]) -> SparseVolume:
        """Features (V, 6) of the occupied voxels of B clouds (P, 5)."""
        return voxelise(points, self.grid)


def voxelise(points: Sequence[Tensor], grid: VoxelGrid) -> SparseVolume:
    """Mean features of the occupied voxels of B clouds.

    Args:
        points: x, y, z in metres, intensity in [0, 255], seconds before the
            keyframe, shape (P, 5) each. Points outside the grid are dropped.
        grid: The voxel grid.

    Returns:
        Features (V, 6) as ``VOXEL_FEATURES`` lists them, float32.

    Raises:
        ValueError: If a cloud has another shape.
    """
    nx, ny, nz = grid.shape
    features, keys = [], []
    for sample, cloud in enumerate(points):
        mean, voxel = _voxel_means(cloud, grid)
        features.append(mean)
        keys.append(voxel + sample * grid.num_voxels)
    return SparseVolume(
        torch.cat(features), ActiveCells(torch.cat(keys), (nz, ny, nx), len(points))
    )


def _voxel_means(points: Tensor, grid: VoxelGrid) -> Tuple[Tensor, Tensor]:
    """Features (V, 6) and flat (z, y, x) index, ascending, of one cloud."""
    if points.dim() != 2 or points.shape[1] != 5:
        raise ValueError(
            f'points take shape (P, 5): x, y, z, intensity, lag; got {tuple(points.shape)}'
        )
    points = points.float()
    cells, inside = grid.index(points[:, :3])
    points, cells = points[inside], cells[inside]
    offset = (
        (points[:, :3] - points.new_tensor(grid.minimum)) / points.new_tensor(grid.voxel_size)
        - cells
        - 0.5
    )
    features = torch.cat([offset, points[:, 3:4] / 255, points[:, 4:]], dim=1)

    nx, ny, _ = grid.shape
    x, y, z = cells.unbind(1)
    voxel_of, order = ((z * ny + y) * nx + x).sort(stable=True)
    occupied, count = voxel_of.unique_consecutive(return_counts=True)
    # A mean over bags of points: unlike index_add, deterministic on CUDA.
    mean = F.embedding_bag(order, features, count.cumsum(0) - count, mode='mean')
    return torch.cat([mean, count[:, None].log1p()], dim=1), occupied
