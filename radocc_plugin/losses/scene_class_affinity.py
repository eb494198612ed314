"""Scene-class affinity losses: precision, recall and specificity as losses.

B batch, X Y Z grid, C classes, V visible voxels.
"""

from typing import List, Optional

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


def _affinity(hit: Tensor, predicted: Tensor, present: int, total: int) -> Tensor:
    """Sum of the three terms for one class.

    Args:
        hit: Sum of its probability over its voxels, a scalar.
        predicted: Sum of its probability over all voxels, a scalar.
        present: Number of its voxels.
        total: Number of all voxels.
    """
    terms: List[Tensor] = []
    # Without the class both terms are constants; the reference adds 11.5 each.
    if present > 0:
        if float(predicted.detach()) > 0:
            terms.append(hit / (predicted + EPS))
        terms.append(hit / (present + EPS))
    rest = total - present
    if rest > 0:
        terms.append((rest - (predicted - hit)) / (rest + EPS))
    return _negative_log(torch.stack(terms)).sum()


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
    probability = rows.softmax(1)
    predicted = probability.sum(0)
    of_label = probability.gather(1, target[:, None]).squeeze(1)
    left_out = {free_index % logits.shape[-1], void_index}
    losses = [
        _affinity((of_label * (target == index)).sum(), predicted[index], count, len(target))
        for index, count in zip(*(values.tolist() for values in target.unique(return_counts=True)))
        if index not in left_out
    ]
    return torch.stack(losses).mean() if losses else connected_zero(logits)


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
    return _affinity((occupied * present).sum(), occupied.sum(), int(present.sum()), len(target))
