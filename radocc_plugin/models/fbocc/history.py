"""The past of a stream: what is kept of it, moved, and fused.

B batch, T past frames, C channels, X Y Z grid.
"""

from dataclasses import dataclass
from typing import Callable, Dict, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from radocc_plugin.geometry import VoxelGrid, transform_points


@dataclass(frozen=True)
class Memory:
    """The past of one sequence, in the augmented ego of its last frame.

    Args:
        volumes: Of the last T frames, newest first, no gradient, shape (T, C,
            Y, X, Z).
        steps: How many frames before the last one each of them is, float32,
            shape (T,).
        bda_mat: Key ego to augmented ego of the last frame, float64, (4, 4).
    """

    volumes: Tensor
    steps: Tensor
    bda_mat: Tensor


class StreamState:
    """The memories of the frames of the last batch, by their tokens.

    A frame finds the one before it (``prev``) in whatever slot that was. One
    that starts a sequence, or whose predecessor was not in the last batch
    (after a resume, in another order), has no memory. It is part of
    a checkpoint with ``SafeCheckpointHook.save_streams``, of the training.
    """

    def __init__(self) -> None:
        self.memories: Dict[str, Memory] = {}

    def recall(self, metainfo: dict) -> Optional[Memory]:
        """What is known of the frames before one.

        Args:
            metainfo: ``start_of_sequence`` and ``prev``, the token of the
                frame before.
        """
        if metainfo['start_of_sequence']:
            return None
        return self.memories.get(metainfo['prev'])


def cell2point(grid: VoxelGrid) -> Tensor:
    """Index of a cell to metres, shape (4, 4), float64.

    As published a cell lies at its lower bound, not at its centre.
    """
    matrix = torch.diag(torch.tensor([*grid.voxel_size, 1.0]).double())
    matrix[:3, 3] = torch.tensor(grid.minimum)
    return matrix


def cell2past_cell(
    grid: VoxelGrid, bda_mat: Tensor, ego2prev_ego: Tensor, past_bda_mat: Tensor
) -> Tensor:
    """Cells of this frame to those of the frame before, (4, 4), float64.

    Args:
        grid: The voxel grid of both frames.
        bda_mat: Key ego to augmented ego of this frame, (4, 4).
        ego2prev_ego: Ego of this frame to that of the frame before, (4, 4).
        past_bda_mat: ``bda_mat`` of the frame before.
    """
    cell2ego = torch.linalg.inv(bda_mat) @ cell2point(grid)
    past_cell2ego = torch.linalg.inv(past_bda_mat) @ cell2point(grid)
    return torch.linalg.inv(past_cell2ego) @ ego2prev_ego @ cell2ego


def warp(volumes: Tensor, cell2past: Tensor) -> Tensor:
    """Looks volumes up where the cells of another frame lie in them.

    Args:
        volumes: Shape (T, C, Y, X, Z).
        cell2past: Index (x, y, z) in the result to that in ``volumes``,
            float64, shape (4, 4).

    Returns:
        Trilinear, zero outside of the outermost cells, same shape.
    """
    if torch.equal(cell2past, torch.eye(4).to(cell2past)):
        return volumes
    ny, nx, nz = volumes.shape[-3:]
    y, x, z = torch.meshgrid(
        *(torch.arange(n, device=volumes.device) for n in (ny, nx, nz)), indexing='ij'
    )
    cells = torch.stack([x, y, z], dim=-1).double().view(-1, 3)
    past = transform_points(cell2past.to(cells.device), cells)
    spans = past.new_tensor([nx - 1, ny - 1, nz - 1])
    # grid_sample takes the last axis first: z, x, y
    positions = (2 * past / spans - 1)[:, [2, 0, 1]].to(volumes)
    return F.grid_sample(
        volumes.flatten(0, 1)[None], positions.view(1, ny, nx, nz, 3), align_corners=True
    )[0].unflatten(0, volumes.shape[:2])


def fuse(
    volumes: Tensor,
    past: Tensor,
    steps: Tensor,
    interval: float,
    time_conv: Callable,
    cat_conv: Callable,
) -> Tensor:
    """One volume of the current frames and their past.

    Args:
        volumes: Of the current frames, shape (B, C, Y, X, Z).
        past: Of T earlier frames in the current augmented ego, shape (B, T, C,
            Y, X, Z).
        steps: How many frames before, shape (B, T).
        interval: Seconds between frames.
        time_conv: C + 1 to C channels; the last input is the age in seconds.
        cat_conv: (1 + T) * C to C channels, current frame first.
    """
    frames = torch.cat([volumes[:, None], past], dim=1)
    ages = interval * F.pad(steps, (1, 0))
    ages = ages.view(*ages.shape, 1, 1, 1, 1).expand(*frames.shape[:2], 1, *frames.shape[3:])
    frames = time_conv(torch.cat([frames, ages], dim=2).flatten(0, 1))
    return cat_conv(frames.unflatten(0, ages.shape[:2]).flatten(1, 2))


def append(memory_volumes: Tensor, volume: Tensor, steps: Tensor) -> Sequence[Tensor]:
    """Volumes and steps with the current frame in front, the oldest gone.

    Args:
        memory_volumes: Shape (T, C, Y, X, Z), in the current augmented ego.
        volume: Of the current frame, shape (C, Y, X, Z).
        steps: How many frames before the current one, shape (T,).
    """
    volumes = torch.cat([volume.detach()[None], memory_volumes[:-1]])
    return volumes, F.pad(steps, (1, -1))
