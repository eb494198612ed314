"""Rays and the grid that they cross, shared by all volumes rendered."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Optional

import torch
from torch import Tensor

from radocc_plugin.geometry import Rays, RayCrossings, VoxelGrid, traverse

_FLOATS = (torch.float32, torch.float64)


@dataclass(frozen=True)
class RenderGeometry:
    """What the teacher's and the student's render have in common.

    Args:
        rays: The rays of the batch.
        grid: The voxel grid, the same for every sample.
        num_volumes: Number of volumes B; ``rays.sample`` counts them.

    Raises:
        ValueError: If a ray is not finite or has no direction.
    """

    rays: Rays
    grid: VoxelGrid
    num_volumes: int
    # What a backend keeps of the rays between calls.
    kept: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        origins, directions = self.rays.origins, self.rays.directions
        usable = (origins.isfinite() & directions.isfinite()).all(-1) & (directions != 0).any(-1)
        if usable.device.type != 'cpu':  # to look would wait for the GPU
            torch._assert_async(
                usable.all(), 'rays take finite origins and finite directions other than zero'
            )
        elif not bool(usable.all()):
            bad = int((~usable).nonzero()[0])
            raise ValueError(
                'rays take finite origins and finite directions other than '
                f'zero, got {origins[bad].tolist()} and '
                f'{directions[bad].tolist()}'
            )

    @property
    def num_voxels(self) -> int:
        """Voxels of all volumes."""
        return self.num_volumes * self.grid.num_voxels

    @property
    def cubic_voxel_size(self) -> float:
        """Edge of a voxel in metres.

        Raises:
            ValueError: If the voxels are not cubes.
        """
        edges = self.grid.voxel_size
        if max(edges) > 1.001 * min(edges):
            raise ValueError(
                'density per voxel needs cubic voxels, grid_shape '
                f'{self.grid.shape} gives edges {edges} m'
            )
        return edges[0]

    @cached_property
    def crossings(self) -> RayCrossings:
        """Voxels crossed by each ray; ``voxel`` is the flat index (batch, x,
        y, z). Walked at the first use: compiled backends never need it."""
        return self.walk(torch.float32)

    def walk(self, dtype: torch.dtype) -> RayCrossings:
        """The same walk with lengths of another floating type."""
        crossings = traverse(self.rays.origins, self.rays.directions, self.grid, dtype=dtype)
        if self.num_volumes == 1:
            return crossings
        voxel = crossings.voxel + torch.repeat_interleave(
            self.rays.sample * self.grid.num_voxels,
            crossings.offsets.diff(),
            output_size=len(crossings.voxel),
        )
        return replace(crossings, voxel=voxel)

    def check_volume(self, name: str, volume: Tensor, like: Optional[Tensor] = None) -> None:
        """Raises ValueError unless a flat volume fits.

        Args:
            name: What the error calls it.
            volume: (V,), or (V, C) if ``like`` is given.
            like: Another volume, whose type it must have.
        """
        if len(volume) != self.num_voxels:
            raise ValueError(
                f'{name} takes {self.num_voxels} voxels ({self.num_volumes} '
                f'volumes of {self.grid.shape}), got {len(volume)}'
            )
        dtypes = _FLOATS if like is None else (like.dtype,)
        dims = 1 if like is None else 2
        if volume.dim() != dims or volume.dtype not in dtypes:
            shape = '(V,)' if like is None else '(V, C)'
            raise ValueError(
                f'{name} takes shape {shape} in '
                f'{" or ".join(str(d)[6:] for d in dtypes)}, got '
                f'{tuple(volume.shape)} in {volume.dtype}'
            )
