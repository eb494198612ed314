"""Data samples to look at, from a dataset and a dump, without a model."""

from pathlib import Path
from typing import List, Optional, Union

import numpy as np
import torch

from radocc_plugin.evaluation import prediction_path, read_prediction
from radocc_plugin.fileio import read_image
from radocc_plugin.label_space import label_space_of
from radocc_plugin.structures import OccData, OccDataSample

_META = (
    'token',
    'scene_name',
    'scene_token',
    'timestamp',
    'cam_names',
    'img_path',
    'cam2img',
    'cam2ego',
    'ego2global',
    'lidar_path',
    'lidar2ego',
    'lidar_columns',
    'label_space',
    'backend_args',
)


def sample_of_frame(frame: dict, dump: Optional[Union[str, Path]] = None) -> OccDataSample:
    """A data sample of a dataset's item.

    Args:
        frame: What ``Occ3DNuScenesDataset`` gives with the pipeline
            ``[LoadOcc3D]``, or with none.
        dump: Folder of predictions, see ``DumpPredictions``.

    Raises:
        ValueError: If the prediction is missing or bad; names the file.
    """
    sample = OccDataSample(
        metainfo={name: frame[name] for name in _META if name in frame or name != 'lidar_path'}
    )
    sizes = [read_image(path, frame['backend_args']).size for path in frame['img_path']]
    # smaller images are padded, see LoadMultiViewImages
    width, height = np.max(sizes, 0).tolist()
    sample.set_metainfo(dict(ori_shape=(height, width)))
    if 'gt_occ' in frame:
        sample.gt_occ = OccData(**{k: torch.from_numpy(v) for k, v in frame['gt_occ'].items()})
    if dump is not None:
        sample.pred_occ = OccData(
            semantics=read_prediction(
                prediction_path(dump, frame['scene_name'], frame['token']),
                label_space_of(frame, 'sample_of_frame'),
            )
        )
    return sample


def scene_indices(dataset, scene: str) -> List[int]:
    """The frames of a scene in the order of time.

    Args:
        dataset: An ``Occ3DNuScenesDataset``.
        scene: Its name or token.

    Raises:
        ValueError: If the dataset has no such scene; names those it has.
    """
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    found = [
        i for i, info in enumerate(infos) if scene in (info['scene_name'], info['scene_token'])
    ]
    if not found:
        names = sorted({info['scene_name'] for info in infos})
        some = ', '.join(names[:10]) + (' ...' if len(names) > 10 else '')
        raise ValueError(f'scene takes a name or token of {some}; got {scene!r}')
    times = np.array([infos[i]['timestamp'] for i in found])
    return [found[i] for i in np.argsort(times, kind='stable')]
