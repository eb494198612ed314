"""Occ3D-nuScenes keyframes with calibrated cameras in one ego frame."""
import os.path as osp
from typing import List, Sequence

import numpy as np
from mmengine.dataset import BaseDataset

from radocc_plugin import occ3d
from radocc_plugin.datasets.info_file import load_infos
from radocc_plugin.evaluation.lidar_origins import scene_lidar_origins
from radocc_plugin.registry import DATASETS


@DATASETS.register_module()
class Occ3DNuScenesDataset(BaseDataset):
    """nuScenes keyframes with Occ3D labels, read from an info file.

    ``get_data_info`` gives the pipeline, all matrices in float64:

    - ``token``, ``scene_name``, ``scene_token``, ``prev``, ``next``,
      ``timestamp`` (s), ``sample_idx``, ``data_root``
    - ``cam_names``, ``img_path`` (N strings), ``cam2img`` (N, 3, 3),
      ``cam2ego`` (N, 4, 4; camera at its own timestamp to the *key* ego
      frame, so it contains the ego motion in between)
    - ``lidar_path``, ``lidar2ego`` (4, 4; to the key ego frame),
      ``ego2global`` (4, 4; of the key ego frame), ``lidar_sweeps`` (newest
      first: ``lidar_path``, ``lidar2ego`` to the key ego frame, ``lag`` in
      seconds before the keyframe)
    - ``lidar_origins`` (K, 3): LiDAR positions of the scene's keyframes in
      the ego frame at LiDAR time, from where RayIoU casts its rays; in test
      mode only
    - ``bda_mat``: identity (4, 4); a BEV augmentation replaces it
    - ``occ_path``, ``lidarseg_path`` and ``instances`` where the info has them

    Args:
        cams: Cameras of a sample and their order.
        key_ego: Whose timestamp defines the key ego frame: ``'lidar'``, which
            is the frame of the labels, or a camera (published BEVDet takes
            ``'CAM_FRONT_LEFT'``, FB-OCC ``'CAM_FRONT'``; both ignore that the
            labels are up to 50 ms of ego motion away).
        **kwargs: ``ann_file``, ``data_root``, ``pipeline``, ``indices``,
            ``test_mode`` ... of MMEngine's ``BaseDataset``.

    Raises:
        ValueError: If the info file is bad, a camera is missing in it, or
            ``key_ego`` is unknown. The message names file or field.
    """
    METAINFO = dict(classes=occ3d.CLASSES, palette=occ3d.PALETTE)

    def __init__(self,
                 cams: Sequence[str] = occ3d.CAMERAS,
                 key_ego: str = 'lidar',
                 **kwargs) -> None:
        if key_ego not in ('lidar', *cams):
            raise ValueError(f"key_ego takes 'lidar' or one of {list(cams)}, "
                             f'got {key_ego!r}')
        self.cams = tuple(cams)
        self.key_ego = key_ego
        super().__init__(**kwargs)

    def load_data_list(self) -> List[dict]:
        infos = load_infos(self.ann_file)
        if not infos['data_list']:
            raise ValueError(f'info file {self.ann_file} holds no sample')
        # as in BaseDataset: the file's metainfo has the lowest priority
        for name, value in infos.get('metainfo', {}).items():
            self._metainfo.setdefault(name, value)
        if self.test_mode:
            self._add_lidar_origins(infos['data_list'])
        return infos['data_list']

    def _add_lidar_origins(self, data_list: List[dict]) -> None:
        try:
            origins = scene_lidar_origins(data_list)
        except KeyError as error:
            raise ValueError(
                f'a sample of info file {self.ann_file} lacks {error}; write '
                'it again with tools/create_data.py') from error
        for info, points in zip(data_list, origins):
            info['lidar_origins'] = points

    def get_data_info(self, idx: int) -> dict:
        info = super().get_data_info(idx)
        try:
            return self._parse(info)
        except KeyError as error:
            raise ValueError(
                f'sample {info.get("token", idx)} of info file '
                f'{self.ann_file} lacks {error}; write it again with '
                'tools/create_data.py') from error

    def _parse(self, info: dict) -> dict:
        images = self._select_cameras(info)
        ego2global = _matrix(info['ego2global'])
        lidar2ego = _matrix(info['lidar_points']['lidar2ego'])
        cam2ego = {
            name: _cam2lidar_time_ego(image, ego2global, lidar2ego)
            for name, image in images.items()
        }
        # Takes points of the ego frame at LiDAR time to the key ego frame.
        lidar_ego2key = np.eye(4)
        if self.key_ego != 'lidar':
            calibration = _matrix(images[self.key_ego]['cam2ego'])
            lidar_ego2key = calibration @ np.linalg.inv(cam2ego[self.key_ego])
            ego2global = ego2global @ np.linalg.inv(lidar_ego2key)

        results = {
            name: info[name]
            for name in ('sample_idx', 'token', 'timestamp', 'scene_name',
                         'scene_token', 'prev', 'next')
        }
        results.update(
            data_root=self.data_root,
            cam_names=list(self.cams),
            img_path=[self._join(i['img_path']) for i in images.values()],
            cam2img=np.stack([_matrix(i['cam2img']) for i in images.values()]),
            cam2ego=np.stack([lidar_ego2key @ m for m in cam2ego.values()]),
            lidar_path=self._join(info['lidar_points']['lidar_path']),
            lidar2ego=lidar_ego2key @ lidar2ego,
            ego2global=ego2global,
            lidar_sweeps=[
                dict(
                    lidar_path=self._join(sweep['lidar_path']),
                    lidar2ego=np.linalg.inv(ego2global) @ _matrix(
                        sweep['ego2global']) @ _matrix(sweep['lidar2ego']),
                    lag=info['timestamp'] - sweep['timestamp'])
                for sweep in info['lidar_sweeps']
            ],
            bda_mat=np.eye(4))
        for name in ('occ_path', 'lidarseg_path'):
            if name in info:
                results[name] = self._join(info[name])
        for name in ('instances', 'lidar_origins'):
            if name in info:
                results[name] = info[name]
        return results

    def _select_cameras(self, info: dict) -> dict:
        missing = [name for name in self.cams if name not in info['images']]
        if missing:
            raise ValueError(
                f'cams asks for {", ".join(missing)}, which sample '
                f'{info["token"]} of info file {self.ann_file} lacks; it has '
                f'{", ".join(info["images"])}')
        return {name: info['images'][name] for name in self.cams}

    def _join(self, path: str) -> str:
        return osp.join(self.data_root, path)


def _matrix(values) -> np.ndarray:
    return np.asarray(values, np.float64)


def _cam2lidar_time_ego(image: dict, ego2global: np.ndarray,
                        lidar2ego: np.ndarray) -> np.ndarray:
    """Camera to the ego frame at LiDAR time, shape (4, 4)."""
    if 'ego2global' in image:
        return np.linalg.inv(ego2global) @ _matrix(
            image['ego2global']) @ _matrix(image['cam2ego'])
    # mmdet3d's files hold no camera ego pose, but the moved calibration
    return lidar2ego @ np.linalg.inv(_matrix(image['lidar2cam']))
