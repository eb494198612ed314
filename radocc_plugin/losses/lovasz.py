"""Lovasz-softmax: a convex surrogate of one minus the Jaccard index.

B batch, X Y Z grid, C classes, V visible voxels.
"""

from typing import Optional

import torch
from torch import Tensor

from radocc_plugin.losses.common import connected_zero, full_precision
from radocc_plugin.losses.occupancy import visible_voxels


def _jaccard_gradient(foreground: Tensor) -> Tensor:
    """Gradient of the Lovasz extension at errors sorted downward, (V,)."""
    total = foreground.sum()
    intersection = total - foreground.cumsum(0)
    union = total + (1 - foreground).cumsum(0)
    jaccard = 1 - intersection / union
    return torch.cat((jaccard[:1], jaccard.diff()))


def _of_voxels(probability: Tensor, labels: Tensor) -> Optional[Tensor]:
    """Mean over the classes present; None without voxels."""
    losses = []
    for index in labels.unique().tolist():
        foreground = (labels == index).to(probability.dtype)
        errors, order = (foreground - probability[:, index]).abs().sort(descending=True)
        losses.append(errors @ _jaccard_gradient(foreground[order]))
    return torch.stack(losses).mean() if losses else None


@full_precision
def lovasz_softmax(
    logits: Tensor, labels: Tensor, mask: Optional[Tensor] = None, per_sample: bool = False
) -> Tensor:
    """Lovasz-softmax of the visible voxels, over the classes present.

    Args:
        logits: Occupancy logits, shape (B, X, Y, Z, C); softmax inside.
        labels: Classes in [0, C), shape (B, X, Y, Z).
        mask: Voxels that count, bool, shape (B, X, Y, Z); all if None.
        per_sample: Mean over samples instead of one loss of all voxels.
            Samples without a visible voxel are left out.

    Returns:
        Scalar in [0, 1]; 0 for certain, right logits. A connected zero for an
        empty mask.

    Raises:
        ValueError: If shapes disagree.

    Berman et al., CVPR 2018 (``classes='present'``).
    """
    rows, target = visible_voxels(logits, labels, mask)
    if per_sample:
        losses = [
            _of_voxels(rows.softmax(1), target)
            for rows, target in (
                visible_voxels(logits[i], labels[i], None if mask is None else mask[i])
                for i in range(len(logits))
            )
        ]
    else:
        losses = [_of_voxels(rows.softmax(1), target)]
    present = [loss for loss in losses if loss is not None]
    return torch.stack(present).mean() if present else connected_zero(logits)
