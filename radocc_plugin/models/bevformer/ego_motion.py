"""How a BEV map of the frame before lies in the current one.

B batch, H W BEV grid (row y, column x), C channels.
"""

from typing import Sequence, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SHIFT_FRAMES = ('ego', 'lidar')


def bev_shift(
    can_bus: np.ndarray,
    bda_mat: np.ndarray,
    point_cloud_range: Sequence[float],
    shift_frame: str = 'ego',
) -> Tensor:
    """Where a place of the current BEV lies in the turned previous one.

    With the previous BEV turned by :func:`bev_angle`, what is at p now was at
    p + t there, with t the way that the ego has gone, in axes of the current
    frame. ``'ego'`` takes x forward and y left, which is how BEV maps lie
    here: (ahead, left). ``'lidar'`` is the published formula for maps of the
    LiDAR frame, x right and y forward: (right, ahead). Published code keeps
    it for maps of the ego frame, where it is wrong by a quarter turn
    (OpenDriveLab/OccNet#38); its weights were trained so and need it.

    Args:
        can_bus: Vectors with the way since the frame before in global axes
            (0, 1; metres) and the current yaw (16; radians), shape (B, 18).
        bda_mat: Ego to augmented ego, of both frames, shape (B, 4, 4).
        point_cloud_range: Lower and upper bounds, metres.
        shift_frame: ``'ego'`` or ``'lidar'``.

    Returns:
        Shift (x, y) as fractions of the grid, shape (B, 2), float32.
    """
    way, yaw = can_bus[:, :2], can_bus[:, 16]
    distance = np.hypot(way[:, 0], way[:, 1])
    angle = yaw - np.arctan2(way[:, 1], way[:, 0])
    ahead, left = distance * np.cos(angle), -distance * np.sin(angle)
    moved = dict(ego=(ahead, left), lidar=(-left, ahead))[shift_frame]
    moved = np.einsum('bij,jb->bi', bda_mat[:, :2, :2], np.stack(moved))
    low, high = np.array(point_cloud_range).reshape(2, 3)[:, :2]
    return torch.from_numpy(moved / (high - low)).float()


def bev_angle(can_bus: np.ndarray, bda_mat: np.ndarray) -> Tensor:
    """Degrees by which the previous BEV is turned, shape (B,), float32.

    Args:
        can_bus: Vectors with the yaw since the frame before in degrees (17),
            shape (B, 18).
        bda_mat: See :func:`bev_shift`; a mirrored world turns the other way.
    """
    mirrored = np.sign(np.linalg.det(bda_mat[:, :2, :2]))
    return torch.from_numpy(can_bus[:, 17] * mirrored).float()


def rotate_bev(
    bev: Tensor, bev_shape: Tuple[int, int], degrees: Tensor, centre: Tuple[float, float]
) -> Tensor:
    """BEV maps turned against the ego's own turn; nearest cell, 0 outside.

    Args:
        bev: Shape (B, H * W, C).
        bev_shape: H and W.
        degrees: Turn of the ego, counter-clockwise from above, (B,).
        centre: Where the ego stands, (x, y) in cells.

    Returns:
        A new tensor of the shape of ``bev``.

    As torchvision's ``rotate`` on maps (C, H, W) in CVPR2023-Occ @4781df9.
    """
    height, width = bev_shape
    radians = torch.deg2rad(degrees.to(bev.device))
    cosine, sine = radians.cos(), radians.sin()
    turn = torch.stack((cosine, -sine, sine, cosine), -1).view(-1, 2, 2)
    size = bev.new_tensor((width, height), dtype=torch.float32)
    # Both frames count from the centre of the map.
    offset = torch.tensor(centre, device=bev.device) - size / 2
    y, x = torch.meshgrid(
        torch.arange(height, device=bev.device) + (1 - height) / 2,
        torch.arange(width, device=bev.device) + (1 - width) / 2,
        indexing='ij',
    )
    places = torch.stack((x, y), -1) - offset
    source = (turn[:, None, None] * places[:, :, None]).sum(-1) + offset
    # half precision cannot tell neighbouring cells apart
    dtype = torch.promote_types(bev.dtype, torch.float32)
    turned = F.grid_sample(
        bev.to(dtype).transpose(1, 2).unflatten(2, bev_shape),
        (source / (size / 2)).to(dtype),
        mode='nearest',
        padding_mode='zeros',
        align_corners=False,
    )
    return turned.to(bev.dtype).flatten(2).transpose(1, 2)
