"""Labels from files: Occ3D volumes and image segments."""
import logging
import os.path as osp
from pathlib import Path
from typing import Optional, Tuple

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log

from radocc_plugin.datasets.transforms.bev import check_before_bda
from radocc_plugin.label_space import UNLABELLED, LabelSpace, label_space_of
from radocc_plugin.registry import TRANSFORMS
from radocc_plugin.segments import read_label_map, segment_path

_FIELDS = ('semantics', 'mask_lidar', 'mask_camera')


@TRANSFORMS.register_module()
class LoadOcc3D(BaseTransform):
    """Reads ``labels.npz`` of Occ3D.

    Adds ``gt_occ``: ``semantics`` (uint8, free last), ``mask_lidar`` and
    ``mask_camera`` (bool), shape (X, Y, Z) each, the part of the file that
    ``label_space`` of the sample covers. Where ``labelled`` is False no file
    is read: all voxels are unlabelled (255) and in no mask.

    Raises:
        ValueError: If the file is missing or corrupt, lacks a field, or a
            field has another shape, type or an unknown class; names the file.
    """

    def transform(self, results: dict) -> dict:
        check_before_bda(results, self)
        space = label_space_of(results, type(self).__name__)
        if not results.get('labelled', True):
            results['gt_occ'] = dict(
                semantics=np.full(space.shape, UNLABELLED, np.uint8),
                mask_lidar=np.zeros(space.shape, bool),
                mask_camera=np.zeros(space.shape, bool))
            return results
        if 'occ_path' not in results:
            raise ValueError(
                f'sample {results["token"]} has no occ_path; write the info '
                'file with tools/create_data.py, or leave LoadOcc3D out for '
                'the test split, which has no public labels')
        results['gt_occ'] = read_labels(results['occ_path'], space)
        return results


def read_labels(path: str, space: LabelSpace) -> dict:
    """Checked content of an Occ3D ``labels.npz``; see :class:`LoadOcc3D`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            labels = {name: file[name] for name in _FIELDS}
    except Exception as error:  # a damaged archive raises almost anything
        raise ValueError(f'labels {path} take the fields {list(_FIELDS)}: '
                         f'{error}') from error
    for name, volume in labels.items():
        if volume.shape != space.file_shape or volume.dtype.kind not in 'ubi':
            raise ValueError(
                f'{name} of labels {path} takes integers of shape '
                f'{space.file_shape}, got {volume.dtype} {volume.shape}')
    semantics = labels['semantics']
    if semantics.min() < 0 or semantics.max() > space.free:
        unknown = semantics[(semantics < 0) | (semantics > space.free)]
        raise ValueError(f'semantics of labels {path} take classes 0 to '
                         f'{space.free}, got {np.unique(unknown).tolist()}')
    part = space.file_slices()
    return dict(
        semantics=semantics[part].astype(np.uint8),
        mask_lidar=labels['mask_lidar'][part].astype(bool),
        mask_camera=labels['mask_camera'][part].astype(bool))


@TRANSFORMS.register_module()
class LoadSegments(BaseTransform):
    """Reads the segment ids of each *raw* image.

    Adds ``segments``, int32, shape (N, h, w), 0 = no segment. The map of the
    image ``samples/CAM_FRONT/x.jpg`` is the 16-bit PNG
    ``<segments_root>/samples/CAM_FRONT/x.png``.

    Rays start from the un-augmented cameras, so the maps are never cropped,
    flipped or rotated with the images; where in the pipeline the transform
    stands makes no difference. ``Rays.gather_maps`` gives the id of each ray.

    Args:
        segments_root: Folder of the maps, relative to the data root.
        size: Height and width (h, w) to which maps are resized, by taking the
            id at each new pixel's centre; None keeps them.
        missing: What a missing map is: 'error', or 'drop': all 0, so that
            segment affinity skips that image; how often is logged.

    Raises:
        ValueError: If a map is missing, cannot be read, is no label map or
            has not the proportions of its image; names the file.
    """

    def __init__(self,
                 segments_root: str = 'segments',
                 size: Optional[Tuple[int, int]] = None,
                 missing: str = 'error') -> None:
        if missing not in ('error', 'drop'):
            raise ValueError(f'missing takes error or drop, got {missing!r}')
        if missing == 'drop' and size is None:
            raise ValueError("missing='drop' takes a size for the empty maps")
        self.segments_root = segments_root
        self.size = size
        self.missing = missing
        self.num_images = self.num_missing = 0

    def transform(self, results: dict) -> dict:
        data_root = results['data_root']
        root = osp.join(data_root, self.segments_root)
        results['segments'] = np.stack([
            self._load(
                segment_path(root, osp.relpath(image_path, data_root)),
                results.get('ori_shape'))
            for image_path in results['img_path']
        ])
        return results

    def _load(self, path: Path, image_size) -> np.ndarray:
        self.num_images += 1
        if self.missing == 'drop' and not path.is_file():
            self._count_missing(path)
            return np.zeros(self.size, np.int32)
        segments = read_label_map(path)
        if image_size is not None:
            (height, width), (rows, columns) = image_size, segments.shape
            # a map's height was rounded to a pixel
            if abs(height * columns / width - rows) > 1:
                raise ValueError(
                    f'{path}: a map of {rows} x {columns} pixels does not '
                    f'cover an image of {height} x {width}; it was made from '
                    'another image')
        if self.size is None:
            return segments
        rows, columns = (((np.arange(new) + 0.5) * old / new).astype(int)
                         for new, old in zip(self.size, segments.shape))
        return segments[rows[:, None], columns]

    def _count_missing(self, path: Path) -> None:
        """Logs the 1st, 10th, 100th ... missing map of this process."""
        self.num_missing += 1
        if self.num_missing == 10**(len(str(self.num_missing)) - 1):
            print_log(
                f'{self.num_missing} of {self.num_images} images had no '
                f'segment map so far, the latest {path}; their rays have no '
                'segment. tools/generate_segments.py makes the maps',
                logger='current',
                level=logging.WARNING)
