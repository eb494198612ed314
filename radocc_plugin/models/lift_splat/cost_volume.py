"""Stereo over time: how well a feature matches the frame before at a depth.

M = B * N images, D depth bins, h w feature map at a quarter of the input.
"""

from typing import Iterator, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from radocc_plugin.models.lift_splat.depth import DepthBins
from radocc_plugin.models.lift_splat.lift import make_frustum
from radocc_plugin.models.lift_splat.view_geometry import ViewGeometry

STEREO_DOWNSAMPLE = 4  # stride of the features that are compared
_NEAR = 1e-3  # metres; what is closer to the earlier camera is not seen
# Sampled numbers that a GPU holds at once: 512 MiB in float32.
MAX_SAMPLED = 2**27


def sampling_positions(
    geometry: ViewGeometry,
    previous: ViewGeometry,
    depth_bins: DepthBins,
    feature_size: Tuple[int, int],
    device,
) -> Tensor:
    """Where each pixel of a frame, at each depth, lies in the frame before.

    As published, the earlier image has the intrinsics and the augmentation of
    the later one.

    Args:
        geometry: Calibration of the frame.
        previous: Calibration of the frame before it.
        depth_bins: The depth bins.
        feature_size: (h, w).
        device: Where the positions are needed.

    Returns:
        Columns and rows, -1 for the left and upper and 1 for the right and
        lower edge pixels' centres, -2 behind the camera; (M, D, h, w, 2).

    BEVDet dev2.1, ``gen_grid``.
    """
    frustum = make_frustum(depth_bins, feature_size, STEREO_DOWNSAMPLE).to(device)
    image, cam2img, motion = (
        matrix.flatten(0, 1).to(frustum)
        for matrix in (
            geometry.img_aug_mat,
            geometry.cam2img,
            torch.linalg.inv(previous.cam2ego) @ geometry.cam2ego,
        )
    )
    # Step by step in float32, as published: rounding decides which samples
    # at the border are exactly 0, hence ``bias``, and one of them shows in a
    # whole depth map.
    points = (frustum.view(1, -1, 3) - image[:, None, :3, 3]) @ torch.linalg.inv(
        image[:, :3, :3]
    ).mT
    points = torch.cat([points[..., :2] * points[..., 2:], points[..., 2:]], 2)
    points = points @ (motion[:, :3, :3] @ torch.linalg.inv(cam2img)).mT
    points = points + motion[:, None, :3, 3]
    behind = points[..., 2:] < _NEAR
    points = points @ cam2img.mT
    pixels = points[..., :2] / points[..., 2:]
    pixels = pixels @ image[:, :2, :2].mT + image[:, None, :2, 3]
    last = frustum.new_tensor(feature_size[::-1]) * STEREO_DOWNSAMPLE - 1
    positions = (pixels / last * 2 - 1).masked_fill(behind, -2)
    return positions.unflatten(1, frustum.shape[:3])


@torch.no_grad()
def cost_volume(
    current: Tensor, previous: Tensor, positions: Tensor, bias: float = 5.0, group_size: int = 4
) -> Tensor:
    """Matching distribution over depth of each pixel.

    The cost of a depth is the L1 distance between the feature and the
    bilinear sample of the frame before. The samples, a gigabyte per camera at
    full size, are never stored: a CPU takes one depth plane of one camera at
    a time, which its caches hold, other devices some channels of all planes
    of all cameras, which is some hundred kernels instead of ten thousands.

    Args:
        current: Features of the frame, shape (M, C, h, w).
        previous: Features of the frame before, same shape.
        positions: See ``sampling_positions``.
        bias: Added where nothing is sampled. As published, that is decided by
            one channel being exactly 0: the first of the last group.
        group_size: Channels of a group.

    Returns:
        Softmax of the negative cost over depth, shape (M, D, h, w), float32.

    BEVDet dev2.1, ``calculate_cost_volumn``.
    """
    costs_by = costs_by_planes if positions.device.type == 'cpu' else costs_by_channels
    costs = costs_by(current, previous, positions, bias, group_size)
    return costs.neg_().softmax(dim=1)


def costs_by_planes(
    current: Tensor, previous: Tensor, positions: Tensor, bias: float, group_size: int
) -> Tensor:
    """Costs of ``cost_volume``, one plane of one image after the other."""
    costs = current.new_empty(positions.shape[:-1], dtype=torch.float32)
    for image, planes in enumerate(positions):
        rows = current[image].float().flatten(1).t().contiguous()
        for plane, samples in enumerate(_bilinear_rows(previous[image].float(), planes)):
            cost = (rows - samples).abs_().sum(dim=1)
            unseen = samples[:, -group_size] == 0
            costs[image, plane] = (cost + bias * unseen).view(planes.shape[1:3])
    return costs


def costs_by_channels(
    current: Tensor,
    previous: Tensor,
    positions: Tensor,
    bias: float,
    group_size: int,
    max_sampled: int = MAX_SAMPLED,
) -> Tensor:
    """Costs of ``cost_volume``, some channels of everything at a time.

    Args:
        max_sampled: Sampled numbers that are held at once, at least those of
            a group.
    """
    bins = positions.shape[1]
    grid = positions.flatten(1, 2)  # (M, D * h, w, 2)

    def sample(channels: Tensor) -> Tensor:
        return F.grid_sample(channels.float(), grid, align_corners=True).unflatten(2, (bins, -1))

    decisive = previous.shape[1] - group_size
    unseen = sample(previous[:, decisive : decisive + 1])[:, 0] == 0
    costs = float(bias) * unseen
    at_once = max(group_size, max_sampled // grid[..., 0].numel())
    for now, before in zip(current.split(at_once, 1), previous.split(at_once, 1)):
        distance = sample(before).sub_(now.float()[:, :, None]).abs_()
        costs += distance.sum(dim=1)
    return costs


def _bilinear_rows(feature: Tensor, planes: Tensor) -> Iterator[Tensor]:
    """``F.grid_sample`` with zeros outside, one row of C channels a position.

    A weighted bag of four rows reads whole feature vectors, which is three
    times faster on a CPU than channel by channel.

    Args:
        feature: Shape (C, h, w).
        planes: Positions as in ``sampling_positions``, shape (D, h, w, 2).

    Yields:
        Samples of each plane, shape (h * w, C).
    """
    height, width = feature.shape[1:]
    # A position outside is moved into a border of zeros.
    table = F.pad(feature, (1, 2, 1, 2)).flatten(1).t().contiguous()
    size = planes.new_tensor([width, height])
    for positions in planes.flatten(1, 2):
        pixels = (positions + 1) / 2 * (size - 1)
        pixels = torch.minimum(pixels.clamp(min=-1), size)
        first = pixels.floor()
        right, lower = (pixels - first).unbind(1)
        column, row = (first.long() + 1).unbind(1)
        corner = row * (width + 3) + column
        corners = torch.stack([corner, corner + 1, corner + width + 3, corner + width + 4], 1)
        weights = torch.stack(
            [(1 - right) * (1 - lower), right * (1 - lower), (1 - right) * lower, right * lower], 1
        )
        yield F.embedding_bag(corners, table, mode='sum', per_sample_weights=weights)
