"""From masks of a segmentation model to a segment map."""

from typing import Optional, Sequence, Tuple

import cv2
import numpy as np

from radocc_plugin.segment_maps import MAX_LABEL


def shrink(image: np.ndarray, width: Optional[int]) -> np.ndarray:
    """An image at ``width`` if it is wider, by area averaging.

    Args:
        image: RGB, shape (H, W, 3), uint8.
        width: Largest width in pixels; None keeps every image.

    Raises:
        ValueError: If the image has another shape or type.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f'image takes uint8 RGB of shape (H, W, 3), got {image.dtype} {image.shape}'
        )
    if width is None or image.shape[1] <= width:
        return image
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def renumber(labels: np.ndarray, min_area: int = 1) -> np.ndarray:
    """Stable ids: 1, 2, ... in the order of the segments' first pixels.

    Args:
        labels: Segment ids in any numbering, 0 = no segment, shape (h, w).
        min_area: Segments of fewer pixels become 0.

    Returns:
        The same segments, shape (h, w), uint16. Equal segments get equal
        ids, in whatever order a model listed its masks.

    Raises:
        ValueError: If there are more segments than a map can hold.
    """
    values, first, inverse, area = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    kept = np.flatnonzero((area >= min_area) & (values != 0))
    if len(kept) > MAX_LABEL:
        raise ValueError(f'a map takes up to {MAX_LABEL} segments, got {len(kept)}; raise min_area')
    kept = kept[np.argsort(first[kept])]
    ids = np.zeros(len(area), np.uint16)
    ids[kept] = np.arange(1, len(kept) + 1)
    return ids[inverse.reshape(labels.shape)]


def split_components(labels: np.ndarray) -> np.ndarray:
    """Gives every connected part of a segment an id of its own.

    Args:
        labels: Segment ids, 0 = no segment, shape (h, w). Pixels that share
            a side or a corner are connected.
    """
    from skimage.measure import label

    return label(labels, background=0, connectivity=2)


def paint_masks(
    masks: Sequence[np.ndarray],
    shape: Tuple[int, int],
    *,
    min_area: int = 1,
    connected_components: bool = False,
) -> np.ndarray:
    """Makes overlapping masks disjoint: small ones are painted over large.

    Args:
        masks: Masks in any order, bool, shape (h, w) each.
        shape: Height and width of the map.
        min_area: Segments of which fewer pixels stay visible become 0.
        connected_components: Whether the parts of a mask that do not touch
            become segments of their own; ``min_area`` then holds for each.

    Returns:
        Segment ids, shape (h, w), uint16, numbered by :func:`renumber`.

    Raises:
        ValueError: If a mask has another shape or type.

    The order is that of Seal and SLidR's segments, which RadOcc's author
    used: a later, smaller mask overwrites.
    """
    for mask in masks:
        if mask.shape != tuple(shape) or mask.dtype != bool:
            raise ValueError(
                f'masks take bool of shape {tuple(shape)}, got {mask.dtype} {mask.shape}'
            )
    labels = np.zeros(shape, np.int32)
    areas = np.array([mask.sum() for mask in masks], np.int64)
    for value, index in enumerate(np.argsort(-areas, kind='stable'), 1):
        labels[masks[index]] = value
    if connected_components:
        labels = split_components(labels)
    return renumber(labels, min_area)
