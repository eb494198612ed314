"""Depth bins of the lift-splat view transformer, and their supervision."""
from typing import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# A probability from which on 1 - p has lost the third digit in float32.
NEARLY_ONE = 1 - 1e-5


def one_hot_depth(depth_maps: Tensor, bins: Sequence[float],
                  downsample: int) -> Tensor:
    """One-hot depth bins of the nearest return in each feature cell.

    A depth in [first + k * step, first + (k + 1) * step) belongs to bin k.

    Args:
        depth_maps: Metres, 0 where there is no return, shape (M, H, W).
        bins: ``(first, end, step)`` in metres.
        downsample: Size of a feature cell in pixels.

    Returns:
        Shape (M, D, H / downsample, W / downsample), float32; all zero in
        cells without a return inside the bins.

    BEVDet dev2.1, ``get_downsampled_gt_depth``.
    """
    first, end, step = bins
    num_bins = len(torch.arange(first, end, step))
    depth_maps = depth_maps.masked_fill(depth_maps == 0, float('inf'))
    nearest = -F.max_pool2d(-depth_maps[:, None], downsample)
    # as published: bin 0 of D + 1 stands for all that lies outside
    index = (nearest - (first - step)) / step
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
    a training that meets such a cell may diverge.
    """
    visible = targets.any(dim=1)
    with torch.autocast(depth.device.type, enabled=False):
        probability = depth.float().movedim(1, -1)[visible]
        target = targets.movedim(1, -1)[visible]
        wrong = (probability > NEARLY_ONE) & (target == 0)
        others = probability.masked_fill(wrong, 0)
        loss = F.binary_cross_entropy(others, target, reduction='sum')
        rest = others.sum(-1)[wrong.any(-1)]
        loss = loss - rest.clamp_min(torch.finfo(rest.dtype).tiny).log().sum()
    return loss / visible.sum().clamp(min=1)
