"""Numbers that describe a segment map."""

import numpy as np


def map_statistics(labels: np.ndarray) -> dict:
    """Count and sizes of the segments of a map.

    Args:
        labels: Segment ids, shape (h, w), 0 = no segment.

    Returns:
        ``count`` of segments, ``covered`` share of the pixels in [0, 1], and
        ``smallest``, ``median`` and ``largest`` segment as a share of the
        map (0 without segments).
    """
    _, areas = np.unique(labels[labels > 0], return_counts=True)
    shares = areas / labels.size if len(areas) else np.zeros(1)
    return dict(
        count=len(areas),
        covered=float(areas.sum() / labels.size),
        smallest=float(shares.min()),
        median=float(np.median(shares)),
        largest=float(shares.max()),
    )
