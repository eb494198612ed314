"""Labels from files: occupancy volumes and image segments."""

import io
import logging
import os.path as osp
from typing import Dict, Optional, Tuple

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmengine.logging import print_log

from radocc_plugin.datasets.transforms.bev import check_before_bda
from radocc_plugin.fileio import expand_path, read_bytes
from radocc_plugin.label_space import UNLABELLED, LabelSpace, label_space_of
from radocc_plugin.registry import TRANSFORMS
from radocc_plugin.segment_maps import read_label_map, segment_path

# Label of free space in the files of Occ3D-Waymo.
_WAYMO_FREE = 23


class LoadLabels(BaseTransform):
    """Reads the label file of a sample; subclasses know its format.

    Adds ``gt_occ``: ``semantics`` (uint8, free last) and those of
    ``mask_camera`` and ``mask_lidar`` (bool) that ``label_space`` of the
    sample names, shape (X, Y, Z) each, the part of the file that it covers.
    Where ``labelled`` is False no file is read: all voxels are unlabelled
    (255) and in no mask.

    Raises:
        ValueError: If the file is missing or corrupt, lacks a field, or a
            field has another shape, type or an unknown class; names the file.
    """

    def transform(self, results: dict) -> dict:
        check_before_bda(results, self)
        name = type(self).__name__
        space = label_space_of(results, name)
        if not results.get('labelled', True):
            results['gt_occ'] = dict(
                semantics=np.full(space.shape, UNLABELLED, np.uint8),
                **{f'mask_{mask}': np.zeros(space.shape, bool) for mask in space.masks},
            )
            return results
        if 'occ_path' not in results:
            raise ValueError(
                f'sample {results["token"]} has no occ_path; write the info '
                f'file with tools/create_data.py, or leave {name} out for '
                'the test split, which has no public labels'
            )
        try:
            content = read_bytes(results['occ_path'], results.get('backend_args'))
        except Exception as error:  # a storage raises almost anything
            raise ValueError(f'cannot read labels {results["occ_path"]}: {error}') from error
        labels = self.read(content, results['occ_path'], space)
        part = space.file_slices()
        # a copy, so that the whole volume is not kept
        results['gt_occ'] = {name: labels[part].copy() for name, labels in labels.items()}
        return results

    def read(self, content: bytes, path: str, space: LabelSpace) -> dict:
        """``semantics`` (uint8) and masks (bool) of a file.

        Args:
            content: Of the file.
            path: Of the file, for messages.
            space: What it should hold.
        """
        raise NotImplementedError


@TRANSFORMS.register_module()
class LoadOcc3D(LoadLabels):
    """Reads ``labels.npz`` of Occ3D-nuScenes and OpenOcc; see LoadLabels.

    Fields ``semantics`` and the masks of the label space, which OpenOcc has
    none of; others, such as its ``flow``, are ignored.
    """

    def read(self, content: bytes, path: str, space: LabelSpace) -> dict:
        fields = {'semantics': 'semantics'}
        fields.update((f'mask_{m}', f'mask_{m}') for m in space.masks)
        labels = read_volumes(content, path, fields, space.file_shape)
        return as_labels(labels, path, space)


@TRANSFORMS.register_module()
class LoadOcc3DWaymo(LoadLabels):
    """Reads ``<frame>_04.npz`` of Occ3D-Waymo; see LoadLabels.

    Free space is 23 in the files. ``mask_lidar`` is their
    ``origin_voxel_state``; ``mask_camera`` their ``final_voxel_state`` inside
    of ``infov``, since five cameras leave the rear unseen: the voxels that
    published code trains and tests with.

    Occ3D @6e8563a; CVT-Occ @8291052 (docs/dataset.md, its loader).
    """

    def read(self, content: bytes, path: str, space: LabelSpace) -> dict:
        labels = read_volumes(
            content,
            path,
            dict(
                semantics='voxel_label',
                mask_lidar='origin_voxel_state',
                mask_camera='final_voxel_state',
                in_view='infov',
            ),
            space.file_shape,
        )
        semantics = labels['semantics']
        free = semantics == _WAYMO_FREE
        if (semantics[~free] >= space.free).any():
            unknown = np.unique(semantics[~free & (semantics >= space.free)])
            raise ValueError(
                f'voxel_label of labels {path} takes classes 0 to '
                f'{space.free - 1} and {_WAYMO_FREE} for free space, got '
                f'{unknown.tolist()}'
            )
        labels['semantics'] = np.where(free, space.free, semantics)
        labels['mask_camera'] = labels['mask_camera'].astype(bool) & labels.pop('in_view').astype(
            bool
        )
        return as_labels(labels, path, space)


@TRANSFORMS.register_module()
class LoadSurroundOcc(LoadLabels):
    """Reads the sparse ``.npy`` of SurroundOcc-nuScenes; see LoadLabels.

    Rows are (x, y, z, class) of the voxels that are not free, indices from
    the lower corner; class 0 is noise that no loss or metric counts, 1 and
    more are the classes, which our label space has from 0 on.

    SurroundOcc @d9cfca5, its loader and metric.
    """

    def read(self, content: bytes, path: str, space: LabelSpace) -> dict:
        try:
            rows = np.load(io.BytesIO(content), allow_pickle=False)
        except Exception as error:  # a damaged file raises almost anything
            raise ValueError(f'labels {path} take a .npy array: {error}') from error
        if not isinstance(rows, np.ndarray) or rows.ndim != 2 or (rows.shape[1] != 4):
            raise ValueError(
                f'labels {path} take rows (x, y, z, class), got an array of '
                f'shape {getattr(rows, "shape", None)}'
            )
        if rows.dtype.kind not in 'uif':
            raise ValueError(f'labels {path} take numbers, got {rows.dtype}')
        cells, classes = rows[:, :3].astype(np.int64), rows[:, 3]
        if (
            (rows != rows.astype(np.int64)).any()
            or (cells < 0).any()
            or (cells >= space.file_shape).any()
        ):
            raise ValueError(f'labels {path} take voxels of a grid of {space.file_shape}')
        if len(classes) and not 0 <= classes.min() <= classes.max() <= (space.free):
            raise ValueError(
                f'labels {path} take classes 0 to {space.free}, '
                f'got {classes.min():g} to {classes.max():g}'
            )
        semantics = np.full(space.file_shape, space.free, np.uint8)
        semantics[tuple(cells.T)] = np.where(classes == 0, UNLABELLED, classes - 1)
        return dict(semantics=semantics)


def read_volumes(
    content: bytes, path: str, fields: Dict[str, str], shape: Tuple[int, int, int]
) -> Dict[str, np.ndarray]:
    """Integer volumes of a ``.npz`` file.

    Args:
        content: Of the file.
        path: Of the file, for messages.
        fields: Their names in the file by ours.
        shape: Of each, (X, Y, Z).

    Raises:
        ValueError: If a field is missing or does not fit; names the file.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            volumes = {name: file[theirs] for name, theirs in fields.items()}
    except Exception as error:  # a damaged archive raises almost anything
        raise ValueError(
            f'labels {path} take the fields {list(fields.values())}: {error}'
        ) from error
    for name, volume in volumes.items():
        if volume.shape != shape or volume.dtype.kind not in 'ubi':
            raise ValueError(
                f'{fields[name]} of labels {path} takes integers of shape '
                f'{shape}, got {volume.dtype} {volume.shape}'
            )
    return volumes


def as_labels(
    volumes: Dict[str, np.ndarray], path: str, space: LabelSpace
) -> Dict[str, np.ndarray]:
    """Checked ``semantics`` as uint8, and masks as bool."""
    semantics = volumes['semantics']
    if semantics.min() < 0 or semantics.max() > space.free:
        unknown = semantics[(semantics < 0) | (semantics > space.free)]
        raise ValueError(
            f'semantics of labels {path} take classes 0 to '
            f'{space.free}, got {np.unique(unknown).tolist()}'
        )
    return {
        name: volume.astype(np.uint8 if name == 'semantics' else bool)
        for name, volume in volumes.items()
    }


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

    def __init__(
        self,
        segments_root: str = 'segments',
        size: Optional[Tuple[int, int]] = None,
        missing: str = 'error',
    ) -> None:
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
        root = osp.join(data_root, expand_path(self.segments_root))
        if self.missing == 'drop' and not osp.isdir(root):
            raise ValueError(
                f"segments_root: there is no folder {root}; missing='drop' is for single maps"
            )
        sizes = results.get('image_sizes', [None] * len(results['img_path']))
        results['segments'] = np.stack(
            [
                self._load(
                    osp.join(
                        data_root,
                        self.segments_root,
                        segment_path('', osp.relpath(image_path, data_root)),
                    ),
                    size,
                    results,
                )
                for image_path, size in zip(results['img_path'], sizes)
            ]
        )
        return results

    def _load(self, path: str, image_size, results: dict) -> np.ndarray:
        self.num_images += 1
        backend_args = results.get('backend_args')
        if self.missing == 'drop' and not fileio.exists(path, backend_args=backend_args):
            self._count_missing(path)
            return np.zeros(self.size, np.int32)
        segments = read_label_map(path, backend_args)
        if image_size is not None:
            (height, width), (rows, columns) = image_size, segments.shape
            # a map's height was rounded to a pixel
            if abs(height * columns / width - rows) > 1:
                raise ValueError(
                    f'{path}: a map of {rows} x {columns} pixels does not '
                    f'cover an image of {height} x {width}; it was made from '
                    'another image'
                )
            segments = _padded(segments, image_size, results['ori_shape'])
        if self.size is None:
            return segments
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(int)
            for new, old in zip(self.size, segments.shape)
        )
        return segments[rows[:, None], columns]

    def _count_missing(self, path: str) -> None:
        """Logs the 1st, 10th, 100th ... missing map of this process."""
        self.num_missing += 1
        if self.num_missing == 10 ** (len(str(self.num_missing)) - 1):
            print_log(
                f'{self.num_missing} of {self.num_images} images had no '
                f'segment map so far, the latest {path}; their rays have no '
                'segment. tools/generate_segments.py makes the maps',
                logger='current',
                level=logging.WARNING,
            )


def _padded(
    segments: np.ndarray, image_size: Tuple[int, int], ori_shape: Tuple[int, int]
) -> np.ndarray:
    """A map with what ``LoadMultiViewImages.pad_to`` did to its image."""
    shape = [
        round(count * padded / size)
        for count, padded, size in zip(segments.shape, ori_shape, image_size)
    ]
    if tuple(shape) == segments.shape:
        return segments
    canvas = np.zeros(shape, segments.dtype)
    canvas[: segments.shape[0], : segments.shape[1]] = segments
    return canvas
