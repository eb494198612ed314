"""From a pipeline's dictionary to network inputs and a data sample."""

from typing import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import InstanceData

from radocc_plugin.registry import TRANSFORMS
from radocc_plugin.structures import OccData, OccDataSample

META_KEYS = (
    'sample_idx',
    'token',
    'scene_name',
    'timestamp',
    'cam_names',
    'img_path',
    'lidar_path',
    'cam2img',
    'cam2ego',
    'ori_shape',
    'img_aug_mat',
    'img_shape',
    'bda_mat',
    'ego2global',
    'lidar2ego',
)
# What the dataset's options add, see Occ3DNuScenesDataset, and what the
# metrics read.
OPTIONAL_META_KEYS = (
    'scene_token',
    'prev',
    'can_bus',
    'sequence_group_idx',
    'start_of_sequence',
    'ego2prev_ego',
    'lidar_origins',
    'lidarseg_path',
    'lidar_columns',
    'key_ego',
    'label_space',
    'backend_args',
)


@TRANSFORMS.register_module()
class PackOccInputs(BaseTransform):
    """Packs ``inputs`` (tensors) and ``data_samples`` (OccDataSample).

    ``inputs``: ``img`` (N, 3, H, W) uint8 RGB, and ``points`` (P, 5) float32
    where the pipeline loads them, likewise ``lidar_points`` (P, 5; LiDAR
    frame). The sample gets ``gt_occ``, ``gt_depth``, ``segments`` and
    ``gt_instances_3d`` where the pipeline makes them. Behind a
    ``TeacherPipeline`` both have a ``teacher``: its inputs and its data sample,
    with the ``bda_mat`` of the student.

    Adjacent frames, newest first, become ``adjacent_img`` (A, N, 3, H, W) in
    the inputs and, in the metainfo, ``adjacent_exists`` (A,),
    ``adjacent_token``, ``adjacent_timestamp`` (A,), ``adjacent_cam2ego``
    (A, N, 4, 4; to the key ego frame of the current keyframe),
    ``adjacent_ego2global`` (A, 4, 4) and ``adjacent_can_bus`` (A, 18).

    Args:
        meta_keys: What the sample's metainfo holds, besides
            ``OPTIONAL_META_KEYS`` where the dataset gives them.

    Raises:
        ValueError: If the pipeline did not produce one of ``meta_keys``.
    """

    def __init__(self, meta_keys: Sequence[str] = META_KEYS) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        # infos of cameras only have no lidar_path
        missing = [key for key in self.meta_keys if key not in results and key != 'lidar_path']
        if missing:
            raise ValueError(
                f'meta_keys asks for {missing}, which the '
                f'pipeline did not make; it has {sorted(results)}'
            )
        sample = OccDataSample(
            metainfo={
                key: results[key]
                for key in (*self.meta_keys, *OPTIONAL_META_KEYS)
                if key in results
            }
        )
        for name in ('exists', 'token', 'timestamp', 'cam2ego', 'ego2global', 'can_bus'):
            values = [frame[name] for frame in results.get('adjacent', ()) if name in frame]
            if values:
                sample.set_metainfo(
                    {f'adjacent_{name}': values if name == 'token' else np.stack(values)}
                )
        if 'gt_occ' in results:
            sample.gt_occ = OccData(**{k: _tensor(v) for k, v in results['gt_occ'].items()})
        for name in ('gt_depth', 'segments'):
            if name in results:
                setattr(sample, name, _tensor(results[name]))

        if 'gt_instances_3d' in results:
            boxes = {k: _tensor(v) for k, v in results['gt_instances_3d'].items()}
            sample.gt_instances_3d = InstanceData(**boxes)

        inputs = dict(img=_images(results['img']))
        if 'adjacent_img' in results:
            inputs['adjacent_img'] = torch.stack(
                [_images(frame) for frame in results['adjacent_img']]
            )
        for name in ('points', 'lidar_points'):
            if name in results:
                inputs[name] = _tensor(results[name].astype(np.float32))
        if 'teacher' in results:
            inputs['teacher'] = results['teacher']['inputs']
            sample.teacher = results['teacher']['data_samples']
            sample.teacher.set_metainfo(dict(bda_mat=results['bda_mat']))
        return dict(inputs=inputs, data_samples=sample)


def _images(images: Sequence) -> torch.Tensor:
    """PIL images as (N, 3, H, W), uint8."""
    stacked = np.stack([np.asarray(image) for image in images])
    return _tensor(stacked.transpose(0, 3, 1, 2))


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
