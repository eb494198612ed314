"""Segmenters for ablations: how much do good segments matter?

True instances of the synthetic world are the upper bound, segments of the
same sizes in the wrong places the control.
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from radocc_plugin.registry import MODELS
from radocc_plugin.segment_maps import read_label_map, read_manifest, segment_path, settings_hash
from radocc_plugin.segments.painting import renumber, split_components

# Mean difference of 8-bit values; JPEG alone makes about 3, another image 30.
_SAME_IMAGE = 12.0
_IMAGE_NAME = re.compile(r'(synthetic-\w+-\d+)__(CAM_\w+?)__(\d+)\.jpg$')


@MODELS.register_module()
@dataclass(frozen=True)
class RandomSegments:
    """Segments of another folder, each image's shifted to random places.

    A map is mirrored at random along both axes and rolled cyclically by a
    quarter to three quarters of its height and width. Its segments keep their
    areas to the pixel and, but for the border, their shapes; what they cover
    is random. The seed and the image path decide.

    Args:
        reference_root: Folder of maps of the same images.
        seed: Another seed gives other places.

    Raises:
        ValueError: If the folder has no manifest or an image has no map.
    """

    reference_root: str
    seed: int = 0

    @property
    def settings(self) -> dict:
        """Everything that decides the maps, for the manifest."""
        return dict(
            method='random',
            seed=self.seed,
            reference=read_manifest(self.reference_root)['settings'],
        )

    def __call__(self, image: np.ndarray, img_path: str) -> np.ndarray:
        """Segment ids, shape (h, w) of the reference, uint16.

        Args:
            image: Not used.
            img_path: Image path relative to the data root.
        """
        labels = read_label_map(segment_path(self.reference_root, img_path))
        entropy = int(settings_hash(dict(path=img_path, seed=self.seed)), 16)
        rng = np.random.default_rng(entropy)
        flipped = [axis for axis in (0, 1) if rng.random() < 0.5]
        shift = [int(rng.uniform(0.25, 0.75) * n) for n in labels.shape]
        moved = np.roll(np.flip(labels, flipped), shift, axis=(0, 1))
        return renumber(moved)


@MODELS.register_module()
@dataclass(frozen=True)
class SyntheticInstances:
    """True segments of the synthetic world's images.

    Every vehicle, person and other object is a segment; static surfaces are
    split by material (each facade and each tree's foliage has its own) and
    into connected parts. Sky is 0. The image is rendered again, so a map
    takes as long as its image did, and compared with the file.

    Args:
        data_root: Folder of the synthetic data set.
        min_area: Segments of fewer pixels become 0.

    Raises:
        ValueError: If the folder is no synthetic data set, or an image is not
            one that this version of the world renders.
    """

    data_root: str
    min_area: int = 4

    @property
    def settings(self) -> dict:
        """Everything that decides the maps, for the manifest."""
        return dict(
            method='synthetic_instances',
            min_area=self.min_area,
            world=_world_settings(self.data_root),
        )

    def __call__(self, image: np.ndarray, img_path: str) -> np.ndarray:
        """Segment ids, shape (H, W), uint16.

        Args:
            image: RGB, shape (H, W, 3), uint8.
            img_path: Image path relative to the data root.
        """
        match = _IMAGE_NAME.search(img_path)
        if not match:
            raise ValueError(f'{img_path} is no image of the synthetic world')
        name, channel, timestamp = match.groups()
        scene = _scene(self.data_root, name)
        view = scene.picture(channel, scene.time(int(timestamp)))
        if view.image.shape == image.shape:
            difference = cv2.absdiff(view.image, image).mean()
        if view.image.shape != image.shape or difference > _SAME_IMAGE:
            raise ValueError(
                f'{Path(self.data_root) / img_path} is not what this version '
                'of the synthetic world renders; write the data set again '
                'with tools/create_synthetic.py'
            )
        hits = view.hits
        # Materials are below 256; objects come after them.
        identity = np.where(hits.instance >= 0, 256 + hits.instance, hits.material)
        labels = np.where(np.isfinite(hits.distance), identity + 1, 0)
        labels = labels.reshape(image.shape[:2])
        # A pole in front of a car leaves the car one segment.
        parts = split_components(np.where(labels <= 256, labels, 0))
        return renumber(np.where(labels <= 256, parts, labels + labels.size), self.min_area)


def _world_settings(data_root: str) -> dict:
    path = Path(data_root) / 'synthetic_settings.json'
    if not path.is_file():
        raise ValueError(
            f'data_root takes a synthetic data set, {path} is '
            'not there; tools/create_synthetic.py '
            'writes one'
        )
    return json.loads(path.read_text())


@lru_cache(maxsize=16)  # 0.1 GB and about a second each
def _scene(data_root: str, name: str):
    """The scene of this name."""
    from radocc_plugin.synthetic.scene import SceneWriter, scene_settings

    return SceneWriter(Path(data_root), scene_settings(name, _world_settings(data_root)))
