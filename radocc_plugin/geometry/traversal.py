"""Exact walk of rays through a voxel grid.

R rays, M segments (one for each voxel that a ray crosses, packed ray by ray).
"""
from dataclasses import dataclass
from typing import Optional, Tuple

import torch
from torch import Tensor

from radocc_plugin.geometry.voxel_grid import VoxelGrid


@dataclass(frozen=True)
class RaySegments:
    """Voxels crossed by each ray, nearest first.

    Ray ``r`` owns the segments ``offsets[r]:offsets[r + 1]``.

    Args:
        voxel: Flat row-major index of the crossed voxel, int64, (M,).
        near: Ray parameter where the ray enters the voxel, (M,).
        far: Ray parameter where it leaves the voxel, (M,).
        length: Metres travelled in the voxel, (M,).
        offsets: First segment of each ray and M at the end, int64, (R + 1,).
    """
    voxel: Tensor
    near: Tensor
    far: Tensor
    length: Tensor
    offsets: Tensor

    @property
    def num_rays(self) -> int:
        return len(self.offsets) - 1

    @property
    def ray(self) -> Tensor:
        """Ray of each segment, int64, (M,)."""
        return torch.repeat_interleave(
            torch.arange(self.num_rays, device=self.offsets.device),
            self.offsets.diff(),
            output_size=len(self.voxel))


def traverse(origins: Tensor,
             directions: Tensor,
             grid: VoxelGrid,
             max_parameter: Optional[float] = None) -> RaySegments:
    """Every voxel that each ray crosses, with entry and exit, in closed form.

    The crossings of a ray with the grid's planes are arithmetic sequences;
    merging the three of them by one sort gives the voxels in order.

    Args:
        origins: Ray origins in the grid's frame, metres, shape (R, 3); may
            lie inside or outside the grid.
        directions: Directions of any length > 0, shape (R, 3).
        grid: The voxel grid.
        max_parameter: End of the rays in units of their direction; None for
            no end.

    Returns:
        Segments in float32; rays that miss the grid own none.

    Raises:
        ValueError: If the shapes are not (R, 3), or a direction is zero.

    The same voxels as the incremental walk of Amanatides and Woo (1987).
    """
    if origins.dim() != 2 or origins.shape[1] != 3 or (origins.shape !=
                                                       directions.shape):
        raise ValueError('origins and directions take the same shape (R, 3), '
                         f'got {tuple(origins.shape)} and '
                         f'{tuple(directions.shape)}')
    if bool((directions == 0).all(-1).any()):
        raise ValueError('directions must not be zero')
    origins, directions = origins.double(), directions.double()
    minimum = origins.new_tensor(grid.minimum)
    size = origins.new_tensor(grid.voxel_size)
    shape = torch.as_tensor(grid.shape, device=origins.device)

    start, end = _clip(origins, directions, grid, max_parameter)
    # Planes between the clipped ends: integers between two grid coordinates.
    ends = torch.stack((start, end), dim=-1)[:, None]  # (R, 1, 2)
    coordinate = ((origins - minimum)[..., None] +
                  directions[..., None] * ends) / size[:, None]
    first = coordinate.amin(-1).ceil().long()  # (R, 3)
    last = coordinate.amax(-1).floor().long()
    count = (last - first + 1).clamp_min(0) * (end > start)[:, None]
    count = count * (directions != 0)
    owner, step = _expand(count.flatten())
    plane = first.flatten()[owner] + step
    axis = owner % 3
    ray = owner // 3
    crossing = ((minimum[axis] + plane * size[axis] - origins[ray, axis]) /
                directions[ray, axis])
    crossing = torch.minimum(torch.maximum(crossing, start[ray]), end[ray])

    # Entry and exit close the sequence of each ray that meets the grid.
    hit = (end > start).nonzero().squeeze(1)
    ray = torch.cat((hit, ray, hit))
    parameter = torch.cat((start[hit], crossing, end[hit]))
    ray, parameter = _sort_within_rays(ray, parameter)
    near, far = parameter[:-1], parameter[1:]
    keep = (ray[1:] == ray[:-1]) & (far - near > 1e-9)
    ray, near, far = ray[:-1][keep], near[keep], far[keep]

    middle = origins[ray] + directions[ray] * (0.5 * (near + far))[:, None]
    cell = ((middle - minimum) / size).floor().long()
    cell = torch.minimum(cell.clamp_min(0), shape - 1)
    length = (far - near) * directions.norm(dim=-1)[ray]
    offsets = torch.zeros(
        len(origins) + 1, dtype=torch.long, device=origins.device)
    offsets[1:] = torch.bincount(ray, minlength=len(origins)).cumsum(0)
    return RaySegments(
        grid.ravel(cell), near.float(), far.float(), length.float(), offsets)


def _clip(origins: Tensor, directions: Tensor, grid: VoxelGrid,
          max_parameter: Optional[float]) -> Tuple[Tensor, Tensor]:
    """Parameters between which each ray is inside the grid; end <= start
    where it never is."""
    low = (origins.new_tensor(grid.minimum) - origins) / directions
    high = (origins.new_tensor(grid.maximum) - origins) / directions
    near, far = torch.minimum(low, high), torch.maximum(low, high)
    # A ray parallel to an axis is inside its slab for ever or never.
    parallel = directions == 0
    inside = ((origins >= origins.new_tensor(grid.minimum)) &
              (origins < origins.new_tensor(grid.maximum)))
    infinity = torch.full_like(near, float('inf'))
    near = torch.where(parallel, torch.where(inside, -infinity, infinity),
                       near)
    far = torch.where(parallel, torch.where(inside, infinity, -infinity), far)
    start = near.amax(-1).clamp_min(0)
    end = far.amin(-1)
    if max_parameter is not None:
        end = end.clamp_max(max_parameter)
    missed = end <= start
    return start.masked_fill(missed, 0), end.masked_fill(missed, 0)


def _expand(count: Tensor) -> Tuple[Tensor, Tensor]:
    """Owner and running number of ``count[i]`` items of each i."""
    owner = torch.repeat_interleave(
        torch.arange(len(count), device=count.device), count)
    first = count.cumsum(0) - count
    return owner, torch.arange(len(owner), device=count.device) - first[owner]


def _sort_within_rays(ray: Tensor,
                      parameter: Tensor) -> Tuple[Tensor, Tensor]:
    """Sorts by ray, then by parameter, with one sort of a combined key."""
    if not len(ray):
        return ray, parameter
    scale = 0.5 / parameter.max().clamp_min(1e-12)
    order = (ray + parameter * scale).argsort()
    return ray[order], parameter[order]
