"""Info pickles of the codebases before MMEngine, in our layout.

- ``bevdetv2-*`` and ``bevdetv3-*`` of BEVDet, FlashOCC, FB-OCC and RadOcc:
  ``dict(infos, metadata)`` with mmdet3d 1.0's fields, ``scene_token`` and
  ``occ_path`` (a folder), without ``prev`` (FB-OCC has it).
- ``occ_infos_temporal_*`` of BEVFormer's occupancy baseline: the same with
  ``prev``, ``next``, ``can_bus``, ``occ_gt_path`` (a file), and boxes of
  mmdet3d 0.17.

Paths are cut to start at their last ``samples/``, ``sweeps/`` or ``gts/``:
relative to the data root. A pickle of the test split has neither labels nor
names of scenes: a sample's ``scene_name`` is then its ``scene_token``.
"""
import re
from collections import defaultdict
from typing import List, Optional, Tuple

import numpy as np

from radocc_plugin.datasets.poses import MOTION, can_bus_vector, pose_matrix

# mmdet3d's order of labels
DETECTION_CLASSES = ('car', 'truck', 'trailer', 'bus', 'construction_vehicle',
                     'bicycle', 'motorcycle', 'pedestrian', 'traffic_cone',
                     'barrier')
_MICROSECOND = 1e-6
_UNDER_ROOT = re.compile(r'^(?:.*/)?((?:samples|sweeps|gts|lidarseg)/.+)$')


def from_old_infos(old: dict) -> dict:
    """An old info file in our layout.

    Args:
        old: ``dict(infos=[...], metadata=...)`` as described above.

    Returns:
        ``dict(metainfo, data_list)`` as ``nuscenes_infos`` describes it,
        scene by scene in the order of time. (The old code sorts all samples by
        time, which is the same unless two cars drove at once.)

    Raises:
        KeyError, TypeError, ValueError: If an entry lacks what it should
            have; the caller adds the file's name.
    """
    scenes = defaultdict(list)
    for info in sorted(old['infos'], key=lambda info: info['timestamp']):
        scenes[info['scene_token']].append(_sample(info))
    for scene in scenes.values():
        _link(scene)
    data_list = [info for scene in scenes.values() for info in scene]
    for index, info in enumerate(data_list):
        info['sample_idx'] = index
    metainfo = dict(
        dataset='nuscenes',
        version=old.get('metadata', {}).get('version', ''),
        info_version='old',
        categories={n: i
                    for i, n in enumerate(DETECTION_CLASSES)})
    return dict(metainfo=metainfo, data_list=data_list)


def _sample(old: dict) -> dict:
    lidar2ego, ego2global = _pose(old, 'lidar2ego'), _pose(old, 'ego2global')
    occ_path, scene_name = _labels(old)
    # raw messages: zeros where a scene has none, as published
    motion = old['can_bus'][MOTION] if 'can_bus' in old else None
    info = dict(
        token=old['token'],
        timestamp=old['timestamp'] * _MICROSECOND,
        scene_name=scene_name,
        scene_token=old['scene_token'],
        prev=old.get('prev'),
        next=old.get('next'),
        ego2global=ego2global,
        can_bus=can_bus_vector(old['ego2global_rotation'],
                               old['ego2global_translation'], motion),
        images={
            name: _image(camera, ego2global @ lidar2ego)
            for name, camera in old['cams'].items()
        },
        lidar_points=dict(
            num_pts_feats=5,
            lidar_path=_under_root(old['lidar_path']),
            lidar2ego=lidar2ego),
        lidar_sweeps=[
            dict(
                lidar_path=_under_root(sweep['data_path']),
                lidar2ego=_pose(sweep, 'sensor2ego'),
                ego2global=_pose(sweep, 'ego2global'),
                timestamp=sweep['timestamp'] * _MICROSECOND)
            for sweep in old['sweeps']
        ],
        instances=_instances(old))
    if occ_path is not None:
        info['occ_path'] = occ_path
    return info


def _image(camera: dict, lidar2global: np.ndarray) -> dict:
    cam2ego, ego2global = (_pose(camera, 'sensor2ego'),
                           _pose(camera, 'ego2global'))
    return dict(
        img_path=_under_root(camera['data_path']),
        cam2img=np.array(camera['cam_intrinsic'], np.float64),
        cam2ego=cam2ego,
        ego2global=ego2global,
        lidar2cam=np.linalg.inv(ego2global @ cam2ego) @ lidar2global,
        timestamp=camera['timestamp'] * _MICROSECOND,
        sample_data_token=camera['sample_data_token'])


def _pose(record: dict, name: str) -> np.ndarray:
    return pose_matrix(record[f'{name}_rotation'],
                       record[f'{name}_translation'])


def _under_root(path: str) -> str:
    found = _UNDER_ROOT.search(path)
    if not found:
        raise ValueError(f'path {path!r} takes a folder samples, sweeps or '
                         'gts in it')
    return found[1]


def _labels(old: dict) -> Tuple[Optional[str], str]:
    """Path of ``labels.npz``, None without, and name of the scene."""
    for name in ('occ_path', 'occ_gt_path'):
        if name in old:
            path = _under_root(old[name])
            if not path.endswith('.npz'):
                path += '/labels.npz'
            return path, path.split('/')[1]
    if 'scene_name' not in old:
        return None, old['scene_token']
    scene_name = old['scene_name']
    return f'gts/{scene_name}/{old["token"]}/labels.npz', scene_name


def _instances(old: dict) -> List[dict]:
    if 'gt_boxes' not in old:
        return []
    boxes = np.array(old['gt_boxes'], np.float64)
    if 'can_bus' in old:
        # mmdet3d 0.17: width before length, yaw clockwise from -y
        boxes[:, 3:5] = boxes[:, [4, 3]]
        boxes[:, 6] = -boxes[:, 6] - np.pi / 2
    return [
        dict(
            bbox_3d=box.tolist(),
            bbox_label_3d=DETECTION_CLASSES.index(name)
            if name in DETECTION_CLASSES else -1,
            bbox_3d_isvalid=bool(valid),
            num_lidar_pts=int(num_lidar_pts),
            velocity=velocity) for box, name, valid, num_lidar_pts, velocity in
        zip(boxes, old['gt_names'], old['valid_flag'], old['num_lidar_pts'],
            np.asarray(old['gt_velocity']).tolist())
    ]


def _link(scene: List[dict]) -> None:
    """Sets ``prev`` and ``next`` along a scene where the file does not."""
    tokens = ['', *(info['token'] for info in scene), '']
    for index, info in enumerate(scene):
        if info['prev'] is None:
            info['prev'] = tokens[index]
        if info['next'] is None:
            info['next'] = tokens[index + 2]
