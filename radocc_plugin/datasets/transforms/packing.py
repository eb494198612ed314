"""From a pipeline's dictionary to network inputs and a data sample."""
from typing import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from radocc_plugin.registry import TRANSFORMS
from radocc_plugin.structures import OccData, OccDataSample

META_KEYS = ('sample_idx', 'token', 'scene_name', 'timestamp', 'cam_names',
             'img_path', 'lidar_path', 'cam2img', 'cam2ego', 'ori_shape',
             'img_aug_mat', 'img_shape', 'bda_mat', 'ego2global', 'lidar2ego')
# Packed where the data has them: what the metrics read.
OPTIONAL_META_KEYS = ('lidar_origins', 'lidarseg_path')


@TRANSFORMS.register_module()
class PackOccInputs(BaseTransform):
    """Packs ``inputs`` (tensors) and ``data_samples`` (OccDataSample).

    ``inputs``: ``img`` (N, 3, H, W) uint8 RGB, and ``points`` (P, 5) float32
    where the pipeline loads them. The sample gets ``gt_occ``, ``gt_depth`` and
    ``segments`` where the pipeline makes them.

    Args:
        meta_keys: What the sample's metainfo holds.

    Raises:
        ValueError: If the pipeline did not produce one of ``meta_keys``.
    """

    def __init__(self, meta_keys: Sequence[str] = META_KEYS) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        missing = [key for key in self.meta_keys if key not in results]
        if missing:
            raise ValueError(
                f'meta_keys asks for {missing}, which the '
                f'pipeline did not make; it has {sorted(results)}')
        sample = OccDataSample(
            metainfo={key: results[key]
                      for key in (*self.meta_keys, *OPTIONAL_META_KEYS)
                      if key in results})
        if 'gt_occ' in results:
            sample.gt_occ = OccData(**{
                k: _tensor(v)
                for k, v in results['gt_occ'].items()
            })
        for name in ('gt_depth', 'segments'):
            if name in results:
                setattr(sample, name, _tensor(results[name]))

        images = np.stack([np.asarray(image) for image in results['img']])
        inputs = dict(img=_tensor(images.transpose(0, 3, 1, 2)))
        if 'points' in results:
            inputs['points'] = _tensor(results['points'].astype(np.float32))
        return dict(inputs=inputs, data_samples=sample)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
