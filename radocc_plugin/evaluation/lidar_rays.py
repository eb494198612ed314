"""LiDAR-like rays against volumes of labels: what RayIoU compares.

V volumes (prediction, ground truth), R rays, X Y Z grid.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from radocc_plugin.geometry import VoxelGrid, traverse

_NUM_AZIMUTHS = 360
_NUM_PITCHES_BELOW = 10
_HIGHEST_PITCH = 0.21  # rad, upper end of the nuScenes LiDAR


def lidar_directions() -> Tensor:
    """Unit directions of the 39 x 360 rays of RayIoU, pitch by pitch.

    The first ten pitches hit flat ground below a sensor of height h at
    distances h, 2 h, ... 10 h; the others go on in the last step until 0.21
    rad. The azimuths are whole degrees.

    Returns:
        Shape (14040, 3), float32.

    SparseOcc af4d9df (RayIoU v1.1).
    """
    pitches = [math.atan(k + 1) - math.pi / 2 for k in range(_NUM_PITCHES_BELOW)]
    while pitches[-1] < _HIGHEST_PITCH:
        pitches.append(2 * pitches[-1] - pitches[-2])
    pitch = torch.tensor(pitches, dtype=torch.float64)[:, None]
    azimuth = torch.arange(_NUM_AZIMUTHS, dtype=torch.float64).deg2rad()
    directions = torch.stack(
        (
            pitch.cos() * azimuth.cos(),
            pitch.cos() * azimuth.sin(),
            pitch.sin().expand(-1, _NUM_AZIMUTHS),
        ),
        -1,
    )
    return directions.flatten(0, 1).float()


@dataclass(frozen=True)
class RayHits:
    """Where rays end in each of V volumes.

    Args:
        labels: Class of the first occupied voxel; free where there is none,
            (V, R).
        distances: Metres along the ray, (V, R).
        counted: Rays that take part in the metric, (R,).
    """

    labels: Tensor
    distances: Tensor
    counted: Tensor


def cast_rays(
    volumes: Tensor,
    origin: Tensor,
    directions: Tensor,
    grid: VoxelGrid,
    published_quirks: bool = True,
    *,
    free: int,
) -> RayHits:
    """First occupied voxel of each ray, found by one exact walk for all.

    Args:
        volumes: Labels, shape (V, X, Y, Z).
        origin: Common origin of the rays in the grid's frame, metres, (3,).
        directions: Unit directions, shape (R, 3).
        grid: Grid of the volumes.
        published_quirks: As the published code: the distance is that at which
            the ray *leaves* the voxel; directions pass through float32 end
            points in voxel units; a ray that never meets the grid ends in
            voxel (0, 0, 0) at minus one voxel. Otherwise the distance is
            that at which the ray enters the voxel, and a ray that misses the
            grid is not counted.
        free: Label of free space; those below it are occupied.

    Returns:
        Hits; a ray that meets no occupied voxel has the label and the
        distance of the last voxel on its way.

    Raises:
        ValueError: If the volumes do not fit the grid, or its voxels are no
            cubes.

    ``dvr.render_forward`` of SparseOcc af4d9df, but for origins less than one
    voxel below a bound of the grid, which its truncation takes for inside.
    """
    if tuple(volumes.shape[1:]) != grid.shape:
        raise ValueError(f'volumes take shape (V, {grid.shape}), got {tuple(volumes.shape)}')
    size = grid.voxel_size[0]
    if max(abs(edge - size) for edge in grid.voxel_size) > 1e-6:
        raise ValueError(f'RayIoU takes cubic voxels, got {grid.voxel_size} m')
    minimum = torch.tensor(grid.minimum, device=origin.device)
    if published_quirks:
        start = (origin - minimum) / size
        end = (origin + directions - minimum) / size
        directions = (end - start).double()
        directions = directions / directions.norm(dim=-1, keepdim=True)
    else:
        start = (origin.double() - minimum) / size
    # in voxel units, so that plane coordinates are exact integers
    units = VoxelGrid((0, 0, 0, *grid.shape), grid.shape)
    crossings = traverse(start.double().expand(len(directions), 3), directions, units)
    enters = crossings.offsets.diff() > 0
    ray_of = crossings.ray
    parameter = crossings.far if published_quirks else crossings.near

    labels, distances = [], []
    for volume in volumes.flatten(1):
        crossed = volume[crossings.voxel]
        hits = (crossed < free).nonzero().squeeze(1)
        rays = ray_of[hits]
        is_first = torch.ones_like(rays, dtype=torch.bool)
        is_first[1:] = rays[1:] != rays[:-1]
        end = crossings.offsets[1:] - 1
        end[rays[is_first]] = hits[is_first]
        end = end[enters]
        label = volume[:1].repeat(len(enters))
        label[enters] = crossed[end]
        distance = parameter.new_full((len(enters),), -1.0)
        distance[enters] = parameter[end]
        labels.append(label)
        distances.append(distance * size)
    counted = torch.ones_like(enters) if published_quirks else enters
    return RayHits(torch.stack(labels), torch.stack(distances), counted)
