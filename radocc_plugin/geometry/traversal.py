"""Exact walk of rays through a voxel grid.

R rays, M crossings (one for each voxel that a ray crosses, packed ray by ray).
"""

from dataclasses import dataclass
from typing import NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from radocc_plugin.geometry.voxel_grid import VoxelGrid

# Rays walked at once: on a CPU the temporaries should stay in its cache.
CPU_CHUNK, GPU_CHUNK = 1024, 32768


@dataclass(frozen=True)
class RayCrossings:
    """Voxels crossed by each ray, nearest first.

    Ray ``r`` owns the crossings ``offsets[r]:offsets[r + 1]``.

    Args:
        voxel: Flat row-major index of the crossed voxel, int64, (M,).
        near: Ray parameter where the ray enters the voxel, (M,).
        far: Ray parameter where it leaves the voxel, (M,).
        length: Metres travelled in the voxel, (M,).
        offsets: First crossing of each ray and M at the end, int64, (R + 1,).
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
        """Ray of each crossing, int64, (M,)."""
        return torch.repeat_interleave(
            torch.arange(self.num_rays, device=self.offsets.device),
            self.offsets.diff(),
            output_size=len(self.voxel),
        )


def traverse(
    origins: Tensor,
    directions: Tensor,
    grid: VoxelGrid,
    max_parameter: Optional[float] = None,
    dtype: torch.dtype = torch.float32,
) -> RayCrossings:
    """Every voxel that each ray crosses, with entry and exit, in closed form.

    The crossings of a ray with the planes of one axis are an arithmetic
    sequence, so the number of crossings of the other two axes that come
    before a crossing is a division: it gives the place of each crossing in
    the ray, and the voxel behind it, without a sort or a loop over steps.

    Args:
        origins: Ray origins in the grid's frame, metres, shape (R, 3); may
            lie inside or outside the grid.
        directions: Directions, such as those with camera z = 1, shape (R,
            3); crossings closer than 1e-9 directions are one.
        grid: The voxel grid.
        max_parameter: End of the rays in units of their direction; None for
            no end.
        dtype: Type of ``near``, ``far`` and ``length``; the walk itself runs
            in float64.

    Returns:
        Crossings; rays that miss the grid own none.

    Raises:
        ValueError: If the shapes are not (R, 3), or a direction is zero or
            not finite.

    The same voxels as the incremental walk of Amanatides and Woo (1987).
    """
    if origins.dim() != 2 or origins.shape[1] != 3 or (origins.shape != directions.shape):
        raise ValueError(
            'origins and directions take the same shape (R, 3), '
            f'got {tuple(origins.shape)} and '
            f'{tuple(directions.shape)}'
        )
    usable = directions.isfinite().all(-1) & (directions != 0).any(-1)
    if not bool(usable.all()):
        raise ValueError(
            f'directions must be finite and not zero, got {directions[~usable][0].tolist()}'
        )
    lines = _lines(origins.detach().double(), directions.detach().double(), grid, max_parameter)
    # Filled part by part, for parts to be joined would be there twice; an end
    # is left over where voxels of no length are dropped.
    most = int(lines.voxels.sum())
    voxel = lines.entry.new_empty(most)
    near, far, length = (lines.start.new_empty(most, dtype=dtype) for _ in range(3))
    count, begin = [], 0
    size = CPU_CHUNK if origins.device.type == 'cpu' else GPU_CHUNK
    for part in zip(*(x.split(size, dim=-1) for x in lines)):
        *walked, voxels = _walk(_Lines(*part))
        end = begin + len(walked[0])
        for whole, own in zip((voxel, near, far, length), walked):
            whole[begin:end] = own
        count.append(voxels)
        begin = end
    offsets = F.pad(torch.cat(count).cumsum(0), (1, 0))
    return RayCrossings(voxel[:begin], near[:begin], far[:begin], length[:begin], offsets)


class _Lines(NamedTuple):
    """How rays meet the grid, (R,), and its inner planes, by axis, (3, R)."""

    start: Tensor  # parameter where the ray enters the grid, >= 0
    end: Tensor  # where it leaves the grid or ends
    entry: Tensor  # flat index of the first voxel
    voxels: Tensor  # number of voxels, with those of no length
    speed: Tensor  # metres in a unit of the parameter
    planes: Tensor  # number of planes that the ray crosses
    first: Tensor  # parameter of the first crossing
    period: Tensor  # parameter between two crossings
    stride: Tensor  # what a crossing adds to the flat index


def _lines(
    origins: Tensor, directions: Tensor, grid: VoxelGrid, max_parameter: Optional[float]
) -> _Lines:
    start, end = _clip(origins, directions, grid, max_parameter)
    cell, *sequences = _plane_sequences(origins, directions, grid, start, end)
    planes, first, period, stride = (x.t().contiguous() for x in sequences)
    voxels = torch.where(end > start, planes.sum(0) + 1, 0)
    return _Lines(
        start, end, grid.ravel(cell), voxels, directions.norm(dim=-1), planes, first, period, stride
    )


def _walk(lines: _Lines) -> Tuple[Tensor, ...]:
    """``RayCrossings`` of some rays, with counts instead of offsets."""
    start, end, entry, voxels, speed, planes, first, period, stride = lines
    frequency = 1 / period
    hits = voxels > 0
    begin = voxels.cumsum(0) - voxels
    total = int(voxels.sum())
    near = start.new_empty(total)
    voxel = begin.new_empty(total)
    near[begin[hits]] = start[hits]
    voxel[begin[hits]] = entry[hits]
    for axis in range(3):
        ray = torch.repeat_interleave(planes[axis])

        def spread(per_ray: Tensor) -> Tensor:
            return per_ray.double().index_select(0, ray)

        number = torch.arange(1, len(ray) + 1, device=ray.device).double()
        number -= spread(planes[axis].cumsum(0) - planes[axis])
        bounds = spread(start), spread(end)
        t = _term(spread(first[axis]), spread(period[axis]), number - 1, bounds)
        place = spread(begin).add_(number)
        at = spread(stride[axis]).mul_(number).add_(spread(entry))
        for other in range(3):
            if other == axis:
                continue
            before = _crossings_before(
                t,
                spread(first[other]),
                spread(period[other]),
                spread(frequency[other]),
                spread(planes[other]),
                bounds,
                including_ties=other < axis,
            )
            place += before
            at += before.mul_(spread(stride[other]))
        place = place.long()
        near.index_copy_(0, place, t)
        voxel.index_copy_(0, place, at.long())

    far = torch.cat((near[1:], near[:1]))
    far[(begin + voxels - 1)[hits]] = end[hits]
    # Where a ray meets an edge or a corner, the voxels between have no length.
    ray = torch.repeat_interleave(voxels)
    keep = far - near > 1e-9
    if not bool(keep.all()):
        voxel, near, far, ray = voxel[keep], near[keep], far[keep], ray[keep]
        voxels = torch.bincount(ray, minlength=len(voxels))
    length = speed.index_select(0, ray).mul_(far - near)
    return voxel, near, far, length, voxels


def _clip(
    origins: Tensor, directions: Tensor, grid: VoxelGrid, max_parameter: Optional[float]
) -> Tuple[Tensor, Tensor]:
    """Parameters between which each ray is inside the grid; end <= start
    where it never is."""
    low = (origins.new_tensor(grid.minimum) - origins) / directions
    high = (origins.new_tensor(grid.maximum) - origins) / directions
    near, far = torch.minimum(low, high), torch.maximum(low, high)
    # A ray parallel to an axis is inside its slab for ever or never.
    parallel = directions == 0
    inside = (origins >= origins.new_tensor(grid.minimum)) & (
        origins < origins.new_tensor(grid.maximum)
    )
    infinity = torch.full_like(near, float('inf'))
    near = torch.where(parallel, torch.where(inside, -infinity, infinity), near)
    far = torch.where(parallel, torch.where(inside, infinity, -infinity), far)
    start = near.amax(-1).clamp_min(0)
    end = far.amin(-1)
    if max_parameter is not None:
        end = end.clamp_max(max_parameter)
    missed = end <= start
    return start.masked_fill(missed, 0), end.masked_fill(missed, 0)


def _plane_sequences(
    origins: Tensor, directions: Tensor, grid: VoxelGrid, start: Tensor, end: Tensor
) -> Tuple[Tensor, ...]:
    """Crossings of each ray with the inner planes of each axis.

    Returns:
        First cell (R, 3), number of crossings (R, 3), ray parameter of the
        first crossing and between two crossings (R, 3), and what each
        crossing adds to the flat voxel index (R, 3).
    """
    minimum = origins.new_tensor(grid.minimum)
    size = origins.new_tensor(grid.voxel_size)
    shape = origins.new_tensor(grid.shape)
    entry = (origins + directions * start[:, None] - minimum) / size
    leave = (origins + directions * end[:, None] - minimum) / size
    forward = directions > 0
    backward = directions < 0
    # Planes 0 and ``shape`` bound the grid and are never crossed inside it.
    low = torch.where(backward, leave, entry).floor() + 1
    high = torch.where(backward, entry, leave).ceil() - 1
    low = torch.minimum(low.clamp_min(1), shape)
    high = torch.minimum(high.clamp_min(0), shape - 1)
    count = (high - low + 1).clamp_min(0)
    count = count * (forward | backward) * (end > start)[:, None]
    # The plane met first; a ray that meets none still has a first cell.
    plane = torch.where(backward, torch.maximum(high, low - 1), low)
    cell = torch.where(backward, plane, plane - 1)
    first = (minimum + plane * size - origins) / directions
    period = size / directions.abs()
    first = torch.where(count > 0, first, torch.zeros_like(first))
    period = torch.where(count > 0, period, torch.ones_like(period))
    step = forward.long() - backward.long()
    stride = step * torch.as_tensor(
        (grid.shape[1] * grid.shape[2], grid.shape[2], 1), device=origins.device
    )
    return cell.long(), count.long(), first, period, stride


def _term(first: Tensor, period: Tensor, index: Tensor, bounds: Tuple[Tensor, Tensor]) -> Tensor:
    """A term of a clamped arithmetic sequence. Not by ``addcmul``: whether
    that rounds once or twice may differ within one tensor."""
    return (period * index).add_(first).clamp_(*bounds)


def _crossings_before(
    t: Tensor,
    first: Tensor,
    period: Tensor,
    frequency: Tensor,
    count: Tensor,
    bounds: Tuple[Tensor, Tensor],
    including_ties: bool,
) -> Tensor:
    """How many terms of a clamped arithmetic sequence come before ``t``.

    The division may be off by one where a term and ``t`` agree to rounding;
    comparing with the terms themselves makes the order of all crossings of a
    ray a strict one, so that each gets a place of its own.
    """

    def is_before(index: Tensor) -> Tensor:
        term = _term(first, period, index, bounds)
        return term <= t if including_ties else term < t

    number = (t - first).mul_(frequency).ceil_().clamp_min_(0)
    number = torch.minimum(number, count)
    number -= (number > 0).logical_and_(~is_before(number - 1)).double()
    number += (number < count).logical_and_(is_before(number))
    return number
