"""A regular grid of cubic or box-shaped voxels in a metric frame."""

from dataclasses import dataclass
from typing import Sequence, Tuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class VoxelGrid:
    """Axis-aligned voxel grid.

    Cell ``i`` of an axis covers ``[minimum + i * size, minimum + (i + 1) *
    size)``; its centre lies at ``+ size / 2``.

    Args:
        point_cloud_range: ``(x0, y0, z0, x1, y1, z1)`` in metres.
        shape: Number of cells ``(X, Y, Z)``.

    Raises:
        ValueError: If the range is empty or the shape is not positive.
    """

    point_cloud_range: Tuple[float, ...]
    shape: Tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(
            self, 'point_cloud_range', tuple(float(v) for v in self.point_cloud_range)
        )
        object.__setattr__(self, 'shape', tuple(int(n) for n in self.shape))
        if len(self.point_cloud_range) != 6 or any(
            high <= low for low, high in zip(self.minimum, self.maximum)
        ):
            raise ValueError(
                'point_cloud_range takes (x0, y0, z0, x1, y1, z1) with each '
                f'upper bound above its lower bound, got '
                f'{self.point_cloud_range}'
            )
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f'shape takes three positive cell counts (X, Y, Z), got {self.shape}')

    @classmethod
    def from_voxel_size(cls, point_cloud_range: Sequence[float], voxel_size: float) -> 'VoxelGrid':
        """Grid whose cells have one edge length in metres."""
        extent = [point_cloud_range[a + 3] - point_cloud_range[a] for a in range(3)]
        shape = tuple(round(e / voxel_size) for e in extent)
        if any(abs(n * voxel_size - e) > 1e-4 for n, e in zip(shape, extent)):
            raise ValueError(
                f'voxel_size {voxel_size} does not divide '
                f'point_cloud_range {tuple(point_cloud_range)}'
            )
        return cls(tuple(point_cloud_range), shape)

    @property
    def minimum(self) -> Tuple[float, ...]:
        return self.point_cloud_range[:3]

    @property
    def maximum(self) -> Tuple[float, ...]:
        return self.point_cloud_range[3:]

    @property
    def voxel_size(self) -> Tuple[float, ...]:
        return tuple(
            (high - low) / n for low, high, n in zip(self.minimum, self.maximum, self.shape)
        )

    @property
    def num_voxels(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]

    def index(self, points: Tensor) -> Tuple[Tensor, Tensor]:
        """Cell of each point.

        Args:
            points: Metric points, shape (..., 3).

        Returns:
            Integer cells (floor), shape (..., 3), and a mask of the points
            that lie inside the grid, shape (...).
        """
        minimum = points.new_tensor(self.minimum)
        size = points.new_tensor(self.voxel_size)
        cells = torch.floor((points - minimum) / size).long()
        upper = torch.as_tensor(self.shape, device=points.device)
        return cells, ((cells >= 0) & (cells < upper)).all(-1)

    def ravel(self, cells: Tensor) -> Tensor:
        """Row-major flat index of cells (..., 3) -> (...)."""
        _, ny, nz = self.shape
        return (cells[..., 0] * ny + cells[..., 1]) * nz + cells[..., 2]

    def centres(self, device=None, dtype=torch.float32) -> Tensor:
        """Centre of every cell, shape (X, Y, Z, 3), metres."""
        axes = [
            low + (torch.arange(n, device=device, dtype=dtype) + 0.5) * size
            for low, n, size in zip(self.minimum, self.shape, self.voxel_size)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing='ij'), dim=-1)
