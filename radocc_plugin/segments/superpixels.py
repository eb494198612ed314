"""Segmenters that need no weights: superpixels of scikit-image.

A segmenter is a frozen dataclass: its fields are its settings, calling it
with an RGB image gives a segment map. Both are deterministic.
"""
from dataclasses import asdict, dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Superpixels:
    """What the superpixel segmenters share.

    Args:
        width: Images wider than this are segmented at this width; the map
            keeps that size.
        min_area: Segments of fewer pixels (of the map) become 0, no segment.

    Raises:
        ValueError: If a field is not positive.
    """
    width: int = 400
    min_area: int = 60

    method = ''

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0:
                raise ValueError(f'{name} takes a positive number, got '
                                 f'{value}')

    @property
    def settings(self) -> dict:
        """Everything that decides the maps, for the manifest."""
        return dict(method=self.method, **asdict(self))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Segments an image.

        Args:
            image: RGB, shape (H, W, 3), uint8.

        Returns:
            Segment ids, shape (h, w), uint16; 1, 2, ... in the order in
            which the segments first appear row by row, 0 = no segment.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError('image takes uint8 RGB of shape (H, W, 3), got '
                             f'{image.dtype} {image.shape}')
        height, width = image.shape[:2]
        if width > self.width:
            size = (self.width, max(1, round(height * self.width / width)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return _renumber(self._segment(image), self.min_area)

    def _segment(self, image: np.ndarray) -> np.ndarray:
        raise NotImplementedError


@dataclass(frozen=True)
class Felzenszwalb(Superpixels):
    """Graph-based segments that follow the image's own edges.

    Felzenszwalb and Huttenlocher, IJCV 2004.

    Args:
        scale: The larger, the larger the segments.
        sigma: Width in pixels of the Gaussian that smooths the image first.
    """
    scale: float = 200.0
    sigma: float = 0.8

    method = 'felzenszwalb'

    def _segment(self, image: np.ndarray) -> np.ndarray:
        from skimage.segmentation import felzenszwalb
        return felzenszwalb(
            image,
            scale=self.scale,
            sigma=self.sigma,
            min_size=self.min_area,
            channel_axis=-1)


@dataclass(frozen=True)
class Slic(Superpixels):
    """Compact segments of about equal size.

    Achanta et al., TPAMI 2012.

    Args:
        num_segments: How many segments to aim at.
        compactness: Weight of position against colour.
    """
    num_segments: int = 150
    compactness: float = 10.0

    method = 'slic'

    def _segment(self, image: np.ndarray) -> np.ndarray:
        from skimage.segmentation import slic
        return slic(
            image,
            n_segments=self.num_segments,
            compactness=self.compactness,
            start_label=0,
            channel_axis=-1)


SEGMENTERS = {cls.method: cls for cls in (Felzenszwalb, Slic)}


def _renumber(labels: np.ndarray, min_area: int) -> np.ndarray:
    """Ids 1, 2, ... by first pixel; segments below ``min_area`` become 0."""
    _, first, inverse, area = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(area >= min_area)
    kept = kept[np.argsort(first[kept])]
    ids = np.zeros(len(area), np.uint16)
    ids[kept] = np.arange(1, len(kept) + 1)
    return ids[inverse.reshape(labels.shape)]
