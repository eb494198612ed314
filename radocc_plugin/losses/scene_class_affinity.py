"""Scene-class affinity losses: precision, recall and specificity as losses.

B batch, X Y Z grid, C classes, V visible voxels.
"""

from typing import Optional

import torch
from torch import Tensor

from radocc_plugin.losses.common import connected_zero, full_precision
from radocc_plugin.losses.occupancy import visible_voxels

EPS = 1e-5


def _negative_log(ratio: Tensor) -> Tensor:
    """-log of a ratio that is moved by 1e-5 where it touches 0 or 1.

    Moved, not clamped: the gradient goes on, as in the reference code.
    """
    shift = (ratio < EPS).to(ratio.dtype) - (ratio >= 1 - EPS).to(ratio.dtype)
    return -(ratio + EPS * shift).log()


def _affinity(hit: Tensor, predicted: Tensor, present: Tensor, total: int) -> Tensor:
    """Sum of the three terms of each class; no look at the device's numbers.

    Args:
        hit: Sum of a class's probability over its voxels, (K,).
        predicted: Sum of its probability over all voxels, (K,).
        present: Number of its voxels, (K,).
        total: Number of all voxels.
    """
    rest = total - present
    ratios = torch.stack(
        (hit / (predicted + EPS), hit / (present + EPS), (rest - (predicted - hit)) / (rest + EPS))
    )
    # Without the class two terms are constants; the reference adds 11.5 each.
    there = present > 0
    counts = torch.stack((there & (predicted.detach() > 0), there, rest > 0))
    return _negative_log(ratios.where(counts, 0.5)).where(counts, 0.0).sum(0)


@full_precision
def sem_scal(
    logits: Tensor,
    labels: Tensor,
    mask: Optional[Tensor] = None,
    free_index: int = -1,
    void_index: Optional[int] = None,
) -> Tensor:
    """Scene-class affinity of the semantic classes present.

    Args:
        logits: Occupancy logits, shape (B, X, Y, Z, C).
        labels: Classes in [0, C), shape (B, X, Y, Z).
        mask: Voxels that count, bool, shape (B, X, Y, Z); all if None.
        free_index: Class of free space, left out; negative counts from the
            end.
        void_index: A second class to leave out (0 in FB-OCC's 19 classes).

    Returns:
        Mean over the classes present of -log precision - log recall - log
        specificity. At best about 6e-5, not 0. A connected zero for an empty
        mask or where only free space is visible.

    Raises:
        ValueError: If shapes disagree.

    MonoScene, arXiv 2112.00726 section 3.4; FB-BEV @6e25469.
    """
    rows, target = visible_voxels(logits, labels, mask)
    if not len(rows):
        return connected_zero(logits)
    probability = rows.softmax(1)
    classes = torch.arange(rows.shape[1], device=rows.device)
    own = target[:, None] == classes
    present = own.sum(0)
    counted = present > 0
    for index in {free_index % logits.shape[-1], void_index} - {None}:
        counted = counted & (classes != index)
    losses = _affinity((probability * own).sum(0), probability.sum(0), present, len(target))
    return losses.where(counted, 0.0).sum() / counted.sum().clamp_min(1)


@full_precision
def geo_scal(
    logits: Tensor, labels: Tensor, mask: Optional[Tensor] = None, free_index: int = -1
) -> Tensor:
    """Scene-class affinity of occupied against free space.

    Args:
        logits: Occupancy logits, shape (B, X, Y, Z, C).
        labels: Classes in [0, C), shape (B, X, Y, Z).
        mask: Voxels that count, bool, shape (B, X, Y, Z); all if None.
        free_index: Class of free space; negative counts from the end.

    Returns:
        -log precision - log recall - log specificity. At best about 6e-5,
        not 0. A connected zero for an empty mask.

    Raises:
        ValueError: If shapes disagree.

    MonoScene, arXiv 2112.00726 section 3.4; FB-BEV @6e25469.
    """
    rows, target = visible_voxels(logits, labels, mask)
    if not len(rows):
        return connected_zero(logits)
    free = free_index % logits.shape[-1]
    occupied = 1 - rows.softmax(1)[:, free]
    present = target != free
    hit, predicted, found = (x.sum()[None] for x in (occupied * present, occupied, present))
    return _affinity(hit, predicted, found, len(target)).squeeze(0)
