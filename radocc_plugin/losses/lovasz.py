"""Lovasz-softmax: a convex surrogate of one minus the Jaccard index.

B batch, X Y Z grid, C classes, V visible voxels.
"""

from typing import Optional

import torch
from torch import Tensor

from radocc_plugin.losses.common import connected_zero, full_precision
from radocc_plugin.losses.occupancy import visible_voxels


def _jaccard_gradient(foreground: Tensor) -> Tensor:
    """Gradient of the Lovasz extension at errors sorted downward, (C, V)."""
    total = foreground.sum(1, keepdim=True)
    intersection = total - foreground.cumsum(1)
    union = total + (1 - foreground).cumsum(1)
    jaccard = 1 - intersection / union
    return torch.cat((jaccard[:, :1], jaccard.diff(dim=1)), dim=1)


def _of_voxels(probability: Tensor, labels: Tensor) -> Optional[Tensor]:
    """Mean over the classes present; None without voxels. All classes are
    sorted, as the host would have to wait to know which are present."""
    if not len(labels):
        return None
    classes = torch.arange(probability.shape[1], device=labels.device)
    foreground = (classes[:, None] == labels).to(probability.dtype)
    errors, order = (foreground - probability.t()).abs().sort(dim=1, descending=True)
    losses = (errors * _jaccard_gradient(foreground.gather(1, order))).sum(1)
    present = foreground.any(1)
    return losses.where(present, 0.0).sum() / present.sum()


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
