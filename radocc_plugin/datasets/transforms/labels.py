"""Labels from files: Occ3D volumes and image segments."""
import os.path as osp
from pathlib import Path
from typing import Optional, Tuple

import numpy as np
from mmcv.transforms import BaseTransform

from radocc_plugin import occ3d
from radocc_plugin.datasets.transforms.bev import check_before_bda
from radocc_plugin.registry import TRANSFORMS
from radocc_plugin.segments import read_label_map, segment_path

_FIELDS = ('semantics', 'mask_lidar', 'mask_camera')


@TRANSFORMS.register_module()
class LoadOcc3D(BaseTransform):
    """Reads ``labels.npz`` of Occ3D.

    Adds ``gt_occ``: ``semantics`` (uint8, 17 free), ``mask_lidar`` and
    ``mask_camera`` (bool), shape (X, Y, Z) = (200, 200, 16) each.

    Raises:
        ValueError: If the file is missing or corrupt, lacks a field, or a
            field has another shape, type or an unknown class; names the file.
    """

    def transform(self, results: dict) -> dict:
        check_before_bda(results, self)
        if 'occ_path' not in results:
            raise ValueError(f'sample {results["token"]} has no occ_path; '
                             'write the info file with tools/create_data.py')
        results['gt_occ'] = read_labels(results['occ_path'])
        return results


def read_labels(path: str) -> dict:
    """Checked content of an Occ3D ``labels.npz``; see :class:`LoadOcc3D`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            labels = {name: file[name] for name in _FIELDS}
    except Exception as error:  # a damaged archive raises almost anything
        raise ValueError(f'labels {path} take the fields {list(_FIELDS)}: '
                         f'{error}') from error
    for name, volume in labels.items():
        if volume.shape != occ3d.GRID_SHAPE or volume.dtype.kind not in 'ubi':
            raise ValueError(
                f'{name} of labels {path} takes integers of shape '
                f'{occ3d.GRID_SHAPE}, got {volume.dtype} {volume.shape}')
    semantics = labels['semantics']
    if semantics.min() < 0 or semantics.max() >= occ3d.NUM_CLASSES:
        unknown = semantics[(semantics < 0) | (semantics > occ3d.FREE)]
        raise ValueError(f'semantics of labels {path} take classes 0 to '
                         f'{occ3d.FREE}, got {np.unique(unknown).tolist()}')
    return dict(
        semantics=semantics.astype(np.uint8),
        mask_lidar=labels['mask_lidar'].astype(bool),
        mask_camera=labels['mask_camera'].astype(bool))


@TRANSFORMS.register_module()
class LoadSegments(BaseTransform):
    """Reads the segment ids of each *raw* image.

    Adds ``segments``, int32, shape (N, h, w), 0 = no segment. The map of the
    image ``samples/CAM_FRONT/x.jpg`` is the 16-bit PNG
    ``<segments_root>/samples/CAM_FRONT/x.png``.

    Args:
        segments_root: Folder of the maps, relative to the data root.
        size: Height and width (h, w) to which maps are resized, by taking the
            id at each new pixel's centre; None keeps them.

    Raises:
        ValueError: If a map is missing, cannot be read, or is no label map;
            names the file.
    """

    def __init__(self,
                 segments_root: str = 'segments',
                 size: Optional[Tuple[int, int]] = None) -> None:
        self.segments_root = segments_root
        self.size = size

    def transform(self, results: dict) -> dict:
        data_root = results['data_root']
        root = osp.join(data_root, self.segments_root)
        results['segments'] = np.stack([
            self._load(segment_path(root, osp.relpath(image_path, data_root)))
            for image_path in results['img_path']
        ])
        return results

    def _load(self, path: Path) -> np.ndarray:
        segments = read_label_map(path)
        if self.size is None:
            return segments
        rows, columns = (((np.arange(new) + 0.5) * old / new).astype(int)
                         for new, old in zip(self.size, segments.shape))
        return segments[rows[:, None], columns]
