"""Supervised losses on occupancy logits.

B batch, X Y Z grid, C classes.
"""
from typing import Optional

import torch.nn.functional as F
from torch import Tensor


def masked_cross_entropy(logits: Tensor,
                         labels: Tensor,
                         mask: Optional[Tensor] = None,
                         class_weight: Optional[Tensor] = None) -> Tensor:
    """Mean cross entropy over the visible voxels.

    The mask is applied before the softmax, so hidden voxels cost nothing.

    Args:
        logits: Occupancy logits, shape (B, X, Y, Z, C).
        labels: Classes in [0, C), any integer dtype, shape (B, X, Y, Z).
        mask: Voxels that count, bool, shape (B, X, Y, Z); all if None.
        class_weight: Weight of each class, shape (C,); the mean is then
            divided by the sum of the weights of the counted voxels.

    Returns:
        Scalar loss in float32. An empty mask gives a zero that is still
        connected to ``logits``.

    Raises:
        ValueError: If shapes disagree.

    BEVDet-Occ ``loss_occ`` (dev2.1 @f71858d) and FlashOcc's ``class_balance``.
    """
    if labels.shape != logits.shape[:-1]:
        raise ValueError(f'labels take shape {tuple(logits.shape[:-1])} to '
                         f'fit logits, got {tuple(labels.shape)}')
    if mask is not None and mask.shape != labels.shape:
        raise ValueError(f'mask takes shape {tuple(labels.shape)}, got '
                         f'{tuple(mask.shape)}')
    logits = logits.flatten(0, -2)
    labels = labels.flatten()
    if mask is not None:
        visible = mask.flatten().bool().nonzero().squeeze(1)
        if not len(visible):
            return logits.float().sum() * 0
        logits = logits.index_select(0, visible)
        labels = labels.index_select(0, visible)
    return F.cross_entropy(logits.float(), labels.long(), weight=class_weight)
