"""Supervision of the depth distributions of the lift-splat view transformer."""

from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from radocc_plugin.geometry import DepthBins

# A probability from which on 1 - p has lost the third digit in float32.
NEARLY_ONE = 1 - 1e-5


def check_stride(images: Tensor, features: Tensor, downsample: int) -> None:
    """Raises a ValueError unless features have one cell a stride of pixels.

    Args:
        images: Network input, shape (..., H, W).
        features: Shape (..., h, w).
        downsample: Size of a feature cell in pixels.
    """
    size, cells = tuple(images.shape[-2:]), tuple(features.shape[-2:])
    if size != tuple(downsample * n for n in cells):
        raise ValueError(
            f'downsample of the view transformer is {downsample}, but images '
            f'of {size} pixels have features of {cells} cells; take an '
            'input_size that it divides, or set pad_size_divisor='
            f'{downsample} of the data_preprocessor'
        )


def one_hot_depth(
    depth_maps: Tensor, bins: DepthBins, downsample: int, size: Optional[Tuple[int, int]] = None
) -> Tensor:
    """One-hot depth bins of the nearest return in each feature cell.

    A depth from ``bins.depths()[k]`` up to the next one belongs to bin k.

    Args:
        depth_maps: Metres, 0 where there is no return, shape (M, H, W).
        bins: The D bins.
        downsample: Size of a feature cell in pixels.
        size: Cells (h, w) of the features, where the preprocessor padded the
            images below and on the right: there is no return.

    Returns:
        Shape (M, D, H / downsample, W / downsample), float32; all zero in
        cells without a return inside the bins.

    Raises:
        ValueError: If the maps are larger than the images.

    BEVDet dev2.1, ``get_downsampled_gt_depth``.
    """
    num_bins = bins.count
    if size is not None:
        below, right = (downsample * n - pixels for n, pixels in zip(size, depth_maps.shape[-2:]))
        if min(below, right) < 0:
            raise ValueError(
                f'gt_depth of {tuple(depth_maps.shape[-2:])} pixels is larger '
                f'than {tuple(size)} cells of {downsample} pixels'
            )
        depth_maps = F.pad(depth_maps, (0, right, 0, below))
    depth_maps = depth_maps.masked_fill(depth_maps == 0, float('inf'))
    nearest = -F.max_pool2d(-depth_maps[:, None], downsample)
    # as published: bin 0 of D + 1 stands for all that lies outside
    index = bins.position(nearest) + 1
    inside = (index >= 0) & (index < num_bins + 1)
    index = torch.where(inside, index, torch.zeros_like(index)).long()
    one_hot = F.one_hot(index.squeeze(1), num_bins + 1)[..., 1:]
    return one_hot.permute(0, 3, 1, 2).float()


def depth_loss(depth: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy of depth distributions in cells with a return.

    Args:
        depth: Depth probabilities, shape (M, D, H, W).
        targets: One-hot bins of ``one_hot_depth``, same shape.

    Returns:
        Sum over bins and cells divided by the number of cells with a return,
        float32; 0 without any.

    BEVDet dev2.1, ``get_depth_loss``; but where a bin without the return has
    nearly all of the probability, ``1 - p`` is the sum of the other bins. The
    published gradient is then rounding alone, some 1e4 times too large, and
    a training that meets such a cell may diverge. Cells without a return are
    weighted by 0 instead of left out: their number is not asked of the device.
    """
    visible = targets.any(dim=1, keepdim=True)
    with torch.autocast(depth.device.type, enabled=False):
        probability = depth.float()
        wrong = (probability > NEARLY_ONE) & (targets == 0)
        others = probability.masked_fill(wrong, 0)
        loss = F.binary_cross_entropy(others, targets, visible.to(others), reduction='sum')
        rest = others.sum(1, keepdim=True)
        rest = rest.clamp_min(torch.finfo(rest.dtype).tiny).log()
        sure = wrong.any(1, keepdim=True) & visible
        loss = loss - torch.where(sure, rest, torch.zeros_like(rest)).sum()
    return loss / visible.sum().clamp(min=1)
