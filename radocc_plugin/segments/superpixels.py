"""Segmenters that need no weights: superpixels of scikit-image.

A segmenter is a callable ``(image, img_path) -> segment map`` with its
``settings``. These are frozen dataclasses and deterministic; scikit-image
releases the GIL, so threads share the images of a batch.
"""

from dataclasses import asdict, dataclass

import numpy as np

from radocc_plugin.registry import MODELS
from radocc_plugin.segments.painting import renumber, shrink


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
                raise ValueError(f'{name} takes a positive number, got {value}')

    @property
    def settings(self) -> dict:
        """Everything that decides the maps, for the manifest."""
        return dict(method=self.method, **asdict(self))

    def __call__(self, image: np.ndarray, img_path: str = '') -> np.ndarray:
        """Segments an image.

        Args:
            image: RGB, shape (H, W, 3), uint8.
            img_path: Not used.

        Returns:
            Segment ids, shape (h, w), uint16; 1, 2, ... in the order in
            which the segments first appear row by row, 0 = no segment.
        """
        labels = self._segment(shrink(image, self.width))
        return renumber(labels + 1, self.min_area)

    def _segment(self, image: np.ndarray) -> np.ndarray:
        """Ids from 0, shape (h, w); every pixel has a segment."""
        raise NotImplementedError


@MODELS.register_module()
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
            image, scale=self.scale, sigma=self.sigma, min_size=self.min_area, channel_axis=-1
        )


@MODELS.register_module()
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
            channel_axis=-1,
        )
