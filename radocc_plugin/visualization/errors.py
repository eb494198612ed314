"""Where a prediction is wrong, and how."""

from typing import Optional, Tuple

import numpy as np

from radocc_plugin.label_space import UNLABELLED, LabelSpace
from radocc_plugin.visualization.voxels import (
    BACKGROUND,
    EGO_COLOR,
    EMPTY,
    draw_voxels,
    ego_box,
    fit,
    in_ego_axes,
)

# Kinds of judged voxels that truth or prediction fills; EMPTY is all the rest.
KINDS = ('right', 'wrong class', 'missed', 'hallucinated')
RIGHT, WRONG_CLASS, MISSED, HALLUCINATED = range(4)
# Safe for the colour-blind (Okabe and Ito), on pale what is right.
KIND_COLORS = np.array(((206, 211, 205), (240, 180, 0), (213, 62, 0), (0, 100, 190)), np.float32)
NOT_JUDGED_COLOR = (216, 221, 230)


def error_kinds(
    truth: np.ndarray, prediction: np.ndarray, mask: Optional[np.ndarray] = None, *, free: int
) -> np.ndarray:
    """The kind of error of every voxel.

    Args:
        truth: Labels, shape (X, Y, Z); 255 (unlabelled) is not judged.
        prediction: Labels, same shape.
        mask: Voxels that are judged, e.g. Occ3D's camera mask, same shape.
        free: Label of free space.

    Returns:
        Index of ``KINDS`` where a judged voxel is filled in truth or
        prediction, else ``EMPTY``; uint8, shape (X, Y, Z).

    Raises:
        ValueError: If the shapes differ.
    """
    for name, volume in dict(prediction=prediction, mask=mask).items():
        if volume is not None and volume.shape != truth.shape:
            raise ValueError(f'{name} has shape {volume.shape}, the ground truth {truth.shape}')
    judged = truth != UNLABELLED
    if mask is not None:
        judged &= np.asarray(mask, bool)
    filled, guessed = truth != free, prediction != free
    kinds = np.full(truth.shape, EMPTY, np.uint8)
    kinds[filled & guessed] = WRONG_CLASS
    kinds[filled & (truth == prediction)] = RIGHT
    kinds[filled & ~guessed] = MISSED
    kinds[guessed & ~filled] = HALLUCINATED
    kinds[~judged] = EMPTY
    return kinds


def count_kinds(kinds: np.ndarray) -> Tuple[int, ...]:
    """How many voxels are of each of ``KINDS``."""
    return tuple(np.bincount(kinds.ravel(), minlength=4)[:4].tolist())


def draw_errors(
    kinds: np.ndarray,
    space: LabelSpace,
    view: str = 'behind',
    *,
    size: Tuple[int, int] = (800, 500),
    mask: Optional[np.ndarray] = None,
    ego: bool = True,
) -> np.ndarray:
    """Draws the errors of a prediction.

    In perspective, every voxel of a kind is seen, those that are missing,
    too. From above, a column has the colour of its most frequent error, the
    stronger, the more of its voxels are wrong.

    Args:
        kinds: Of :func:`error_kinds`, shape (X, Y, Z).
        space: For place and size of the voxels.
        view, size, ego: See ``draw_occupancy``.
        mask: Voxels that were judged; columns without any are shaded from
            above.

    Returns:
        RGB picture, shape (height, width, 3), uint8.
    """
    if view != 'bev':
        return draw_voxels(kinds, KIND_COLORS, space, view, size=size, ego=ego)
    counts = np.stack([(kinds == k).sum(2) for k in range(4)], -1)
    total = counts.sum(-1)
    share = counts[..., 1:].sum(-1) / total.clip(1)
    error = KIND_COLORS[1 + counts[..., 1:].argmax(-1)]
    strength = np.where(share > 0, 0.4 + 0.6 * share, 0)[..., None]
    colors = strength * error + (1 - strength) * KIND_COLORS[RIGHT]
    colors[total == 0] = BACKGROUND
    if mask is not None:
        colors[~np.asarray(mask, bool).any(2)] = NOT_JUDGED_COLOR
    if ego:
        colors[ego_box(space)[:2]] = EGO_COLOR
    return fit(in_ego_axes(colors, space.frame), size)
