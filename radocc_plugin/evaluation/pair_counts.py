"""Compiled counting of label pairs, the hot loop of the mIoU."""
from typing import Tuple

import numpy as np
from numba import njit

from radocc_plugin.occ3d import FREE, NUM_CLASSES, UNLABELLED


@njit(cache=True)
def count_pairs(truth: np.ndarray, predicted: np.ndarray,
                counted: np.ndarray) -> Tuple[np.ndarray, int]:
    """Counts of (ground truth, prediction) labels in one pass.

    Args:
        truth: Integers, shape (N,); 255 (unlabelled) is not counted.
        predicted: Integers, shape (N,).
        counted: Bool, which of them count, shape (N,).

    Returns:
        Counts, shape (18, 18), int64, rows are ground truth; and the first
        place with a label out of range, -1 if there is none.
    """
    pairs = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
    # Most voxels are free in both. A count in a register spares each of them
    # the wait for the last one's store.
    free = 0
    for i in range(truth.size):
        if not counted[i]:
            continue
        t, p = truth[i], predicted[i]
        if t == FREE and p == FREE:
            free += 1
        elif t == UNLABELLED:
            continue
        elif 0 <= t < NUM_CLASSES and 0 <= p < NUM_CLASSES:
            pairs[t, p] += 1
        else:
            return pairs, i
    pairs[FREE, FREE] += free
    return pairs, -1
