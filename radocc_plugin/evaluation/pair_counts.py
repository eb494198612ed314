"""Compiled counting of label pairs, the hot loop of the mIoU."""

from typing import Tuple

import numpy as np
from numba import njit

from radocc_plugin.label_space import UNLABELLED


@njit(cache=True)
def count_pairs(
    truth: np.ndarray, predicted: np.ndarray, counted: np.ndarray, num_classes: int
) -> Tuple[np.ndarray, int]:
    """Counts of (ground truth, prediction) labels in one pass.

    Args:
        truth: Integers, shape (N,); 255 (unlabelled) is not counted.
        predicted: Integers, shape (N,).
        counted: Bool, which of them count, shape (N,).
        num_classes: Classes C, free space last.

    Returns:
        Counts, shape (C, C), int64, rows are ground truth; and the first
        place with a label out of range, -1 if there is none.
    """
    pairs = np.zeros((num_classes, num_classes), np.int64)
    last = num_classes - 1
    # Most voxels are free in both. A count in a register spares each of them
    # the wait for the last one's store.
    free = 0
    for i in range(truth.size):
        if not counted[i]:
            continue
        t, p = truth[i], predicted[i]
        if t == last and p == last:
            free += 1
        elif t == UNLABELLED:
            continue
        elif 0 <= t < num_classes and 0 <= p < num_classes:
            pairs[t, p] += 1
        else:
            return pairs, i
    pairs[last, last] += free
    return pairs, -1
