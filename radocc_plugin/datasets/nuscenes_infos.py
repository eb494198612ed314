"""Info of a keyframe from nuScenes tables.

An info file holds ``dict(metainfo, data_list)``; one sample of the list is::

    token, timestamp (s), scene_name, scene_token, sample_idx
    prev, next      sample tokens, '' at the ends of the scene
    ego2global      4x4, ego pose at LiDAR time
    can_bus         18 numbers, see ``poses.can_bus_vector``; the motion in it
                    is NaN without the CAN bus expansion
    images          {camera: img_path, cam2img 3x3, cam2ego 4x4 (calibration),
                     ego2global 4x4 (ego pose at camera time), lidar2cam 4x4
                     (with the ego motion in between), timestamp (s),
                     sample_data_token, height, width}
    lidar_points    num_pts_feats, lidar_path, lidar2ego 4x4
    lidar_sweeps    newest first: lidar_path, lidar2ego, ego2global, timestamp
    occ_path        gts/<scene>/<token>/labels.npz; not in the test split
    lidarseg_path   where the lidarseg table has the keyframe; not in the test
                    split
    instances       bbox_3d (x, y, z, l, w, h, yaw; centre, LiDAR frame),
                    bbox_label_3d (index of DETECTION_CLASSES, -1 for other
                    categories), num_lidar_pts, bbox_3d_isvalid (whether any
                    LiDAR or radar point is in it), velocity (x, y; m/s,
                    LiDAR frame)

Matrices are float64 arrays; paths are relative to the data root.
"""
import json
import os.path as osp
from typing import Iterator, List, Optional

import numpy as np
from nuscenes import NuScenes
from nuscenes.eval.detection.utils import category_to_detection_name

from radocc_plugin import occ3d
from radocc_plugin.datasets.old_infos import DETECTION_CLASSES
from radocc_plugin.datasets.poses import can_bus_vector, pose_matrix

_MICROSECOND = 1e-6
_NO_MOTION = [0.] * 9


def scene_infos(nusc: NuScenes,
                scene: dict,
                *,
                num_sweeps: int,
                labelled: bool = True) -> List[dict]:
    """Infos of a scene's keyframes in the order of time.

    Args:
        nusc: The tables.
        scene: Row of the scene.
        num_sweeps: Past LiDAR sweeps listed for each sample.
        labelled: Whether Occ3D has public labels of the scene.

    Returns:
        Dicts as this module's docstring lists them, without ``sample_idx``.

    Raises:
        ValueError: If the scene's CAN bus file is unreadable; names it.
    """
    messages = _pose_messages(nusc.dataroot, scene['name'])
    infos = []
    for sample in _samples(nusc, scene):
        info = _sample_info(nusc, scene, sample, num_sweeps)
        ego = nusc.get(
            'ego_pose',
            nusc.get('sample_data',
                     sample['data']['LIDAR_TOP'])['ego_pose_token'])
        info['can_bus'] = can_bus_vector(
            ego['rotation'], ego['translation'],
            _motion(messages, sample['timestamp']))
        if labelled:
            info['occ_path'] = (f'gts/{scene["name"]}/{sample["token"]}'
                                '/labels.npz')
        infos.append(info)
    return infos


def has_can_bus(root_path: str) -> bool:
    """Whether the CAN bus expansion is installed."""
    return osp.isdir(osp.join(root_path, 'can_bus'))


def _pose_messages(root_path: str, scene_name: str) -> Optional[List[dict]]:
    """CAN bus messages about pose and motion; None without the expansion,
    empty for the scenes that were recorded without."""
    if not has_can_bus(root_path):
        return None
    path = osp.join(root_path, 'can_bus', f'{scene_name}_pose.json')
    if not osp.isfile(path):
        return []
    try:
        with open(path) as file:
            messages = json.load(file)
        for message in messages:
            for name in ('accel', 'rotation_rate', 'vel'):
                if len(message[name]) != 3:
                    raise ValueError(f'{name} takes 3 numbers')
            message['utime']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f'cannot read CAN bus file {path}: {error!r}'
                         ) from error
    return messages


def _motion(messages: Optional[List[dict]],
            timestamp: int) -> Optional[List[float]]:
    """Motion of the first message after a keyframe, of the last one at the
    end; zeros for a scene without any: CVPR2023-Occ @4781df9."""
    if messages is None:
        return None
    if not messages:
        return _NO_MOTION
    later = (m for m in messages if m['utime'] > timestamp)
    message = next(later, messages[-1])
    return [*message['accel'], *message['rotation_rate'], *message['vel']]


def _samples(nusc: NuScenes, scene: dict) -> Iterator[dict]:
    token = scene['first_sample_token']
    while token:
        sample = nusc.get('sample', token)
        yield sample
        token = sample['next']


def _sample_info(nusc: NuScenes, scene: dict, sample: dict,
                 num_sweeps: int) -> dict:
    lidar = nusc.get('sample_data', sample['data']['LIDAR_TOP'])
    lidar2ego, ego2global = _sensor_pose(nusc, lidar)
    lidar2global = ego2global @ lidar2ego
    info = dict(
        token=sample['token'],
        timestamp=sample['timestamp'] * _MICROSECOND,
        scene_name=scene['name'],
        scene_token=scene['token'],
        prev=sample['prev'],
        next=sample['next'],
        ego2global=ego2global,
        images={
            name: _image_info(nusc, sample['data'][name], lidar2global)
            for name in occ3d.CAMERAS if name in sample['data']
        },
        lidar_points=dict(
            num_pts_feats=5,
            lidar_path=lidar['filename'],
            lidar2ego=lidar2ego),
        lidar_sweeps=_sweeps(nusc, lidar, num_sweeps),
        instances=_instances(nusc, sample, np.linalg.inv(lidar2global)))
    lidarseg_path = _lidarseg_path(nusc, lidar['token'])
    if lidarseg_path is not None:
        info['lidarseg_path'] = lidarseg_path
    return info


def _lidarseg_path(nusc: NuScenes, token: str) -> Optional[str]:
    """File of a keyframe's point labels; the test set's table is empty."""
    if 'lidarseg' not in nusc.table_names:
        return None
    try:
        return nusc.get('lidarseg', token)['filename']
    except KeyError:
        return None


def _image_info(nusc: NuScenes, token: str, lidar2global: np.ndarray) -> dict:
    image = nusc.get('sample_data', token)
    cam2ego, ego2global = _sensor_pose(nusc, image)
    calibration = nusc.get('calibrated_sensor',
                           image['calibrated_sensor_token'])
    return dict(
        img_path=image['filename'],
        cam2img=np.array(calibration['camera_intrinsic']),
        cam2ego=cam2ego,
        ego2global=ego2global,
        lidar2cam=np.linalg.inv(ego2global @ cam2ego) @ lidar2global,
        timestamp=image['timestamp'] * _MICROSECOND,
        sample_data_token=image['token'],
        height=image['height'],
        width=image['width'])


def _sweeps(nusc: NuScenes, lidar: dict, num_sweeps: int) -> List[dict]:
    """Past sweeps of the scene, newest first."""
    sweeps = []
    while lidar['prev'] and len(sweeps) < num_sweeps:
        lidar = nusc.get('sample_data', lidar['prev'])
        lidar2ego, ego2global = _sensor_pose(nusc, lidar)
        sweeps.append(
            dict(
                lidar_path=lidar['filename'],
                lidar2ego=lidar2ego,
                ego2global=ego2global,
                timestamp=lidar['timestamp'] * _MICROSECOND))
    return sweeps


def _instances(nusc: NuScenes, sample: dict,
               global2lidar: np.ndarray) -> List[dict]:
    instances = []
    for token in sample['anns']:
        box = nusc.get('sample_annotation', token)
        box2lidar = global2lidar @ _pose(box)
        width, length, height = box['size']
        yaw = np.arctan2(box2lidar[1, 0], box2lidar[0, 0])
        velocity = global2lidar[:3, :3] @ nusc.box_velocity(token)
        name = category_to_detection_name(box['category_name'])
        label = DETECTION_CLASSES.index(name) if name else -1
        instances.append(
            dict(
                bbox_3d=[
                    *box2lidar[:3, 3].tolist(), length, width, height,
                    float(yaw)
                ],
                bbox_label_3d=label,
                bbox_3d_isvalid=box['num_lidar_pts'] + box['num_radar_pts'] >
                0,
                num_lidar_pts=box['num_lidar_pts'],
                velocity=velocity[:2].tolist()))
    return instances


def _sensor_pose(nusc: NuScenes, sample_data: dict) -> tuple:
    """``sensor2ego`` and ``ego2global`` of a measurement, (4, 4) each."""
    return (_pose(
        nusc.get('calibrated_sensor', sample_data['calibrated_sensor_token'])),
            _pose(nusc.get('ego_pose', sample_data['ego_pose_token'])))


def _pose(record: dict) -> np.ndarray:
    return pose_matrix(record['rotation'], record['translation'])
