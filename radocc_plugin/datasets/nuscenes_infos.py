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
    lidar_points    num_pts_feats, lidar_path, lidar2ego 4x4; no lidar_path and
                    no sweeps for a data root with cameras only
    lidar_sweeps    newest first: lidar_path, lidar2ego, ego2global, timestamp
    occ_path        gts/<scene>/<token>/labels.npz; not in the test split
    sweeps          frames between this keyframe and the next, in the order of
                    time, as asked for: dicts of token (of the LiDAR sweep),
                    timestamp, ego2global, can_bus, images, lidar_points and
                    lidar_sweeps as above. Nobody labelled them
    lidarseg_path   where the lidarseg table has the keyframe; not in the test
                    split
    instances       bbox_3d (x, y, z, l, w, h, yaw; centre, LiDAR frame),
                    bbox_label_3d (index of DETECTION_CLASSES, -1 for other
                    categories), num_lidar_pts, bbox_3d_isvalid (whether any
                    LiDAR or radar point is in it), velocity (x, y; m/s,
                    LiDAR frame)

Matrices are float64 arrays; paths are relative to the data root.
"""

import glob
import json
import os.path as osp
from typing import Dict, Iterator, List, Optional

import numpy as np
from nuscenes import NuScenes
from nuscenes.eval.detection.utils import category_to_detection_name

from radocc_plugin import occ3d
from radocc_plugin.datasets.old_infos import DETECTION_CLASSES
from radocc_plugin.datasets.poses import can_bus_vector, pose_matrix
from radocc_plugin.datasets.sequences import evenly_spaced

_MICROSECOND = 1e-6
_NO_MOTION = [0.0] * 9
# Farthest that an image may be from the LiDAR sweep it goes with. Cameras of
# nuScenes run at 12 Hz: the nearest image is at most 42 ms away.
_SAME_TIME = 50_000  # microseconds


def scene_infos(
    nusc: NuScenes,
    scene: dict,
    *,
    num_sweeps: int,
    sweeps_per_keyframe: int = 0,
    labelled: bool = True,
) -> List[dict]:
    """Infos of a scene's keyframes in the order of time.

    Args:
        nusc: The tables.
        scene: Row of the scene.
        num_sweeps: Past LiDAR sweeps listed for each sample.
        sweeps_per_keyframe: How many frames between two keyframes each
            keyframe gets; fewer where there are fewer.
        labelled: Whether Occ3D has public labels of the scene.

    Returns:
        Dicts as this module's docstring lists them, without ``sample_idx``.

    Raises:
        ValueError: If the scene's CAN bus file is unreadable; names it.
    """
    messages = _pose_messages(nusc.dataroot, scene['name'])
    infos = []
    for sample in _samples(nusc, scene):
        info = _sample_info(nusc, scene, sample, num_sweeps, messages)
        if sweeps_per_keyframe:
            info['sweeps'] = [
                _frame_info(nusc, *frame, num_sweeps, messages)
                for frame in evenly_spaced(_frames_between(nusc, sample), sweeps_per_keyframe)
            ]
        if labelled:
            info['occ_path'] = f'gts/{scene["name"]}/{sample["token"]}/labels.npz'
        infos.append(info)
    return infos


def can_bus_folder(root_path: str) -> Optional[str]:
    """Folder of the CAN bus expansion's files; None if it is not installed.

    That is ``can_bus``, or a folder of that name in it, which some unpackers
    make.

    Raises:
        ValueError: If there is a folder without the files.
    """
    folder = osp.join(root_path, 'can_bus')
    for place in (folder, osp.join(folder, 'can_bus')):
        if glob.glob(osp.join(glob.escape(place), '*_pose.json')):
            return place
    if osp.isdir(folder):
        raise ValueError(
            f'{folder} holds no file <scene>_pose.json of the CAN bus '
            'expansion; unpack it so that they lie right in it, or delete '
            'the folder'
        )
    return None


def _pose_messages(root_path: str, scene_name: str) -> Optional[List[dict]]:
    """CAN bus messages about pose and motion; None without the expansion,
    empty for the scenes that were recorded without."""
    folder = can_bus_folder(root_path)
    if folder is None:
        return None
    path = osp.join(folder, f'{scene_name}_pose.json')
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
        raise ValueError(f'cannot read CAN bus file {path}: {error!r}') from error
    return messages


def _motion(messages: Optional[List[dict]], timestamp: int) -> Optional[List[float]]:
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


def _sample_info(
    nusc: NuScenes, scene: dict, sample: dict, num_sweeps: int, messages: Optional[List[dict]]
) -> dict:
    lidar = nusc.get('sample_data', sample['data']['LIDAR_TOP'])
    images = {
        name: nusc.get('sample_data', sample['data'][name])
        for name in occ3d.CAMERAS
        if name in sample['data']
    }
    lidar2ego, ego2global = _sensor_pose(nusc, lidar)
    info = dict(
        _frame_info(nusc, lidar, images, num_sweeps, messages),
        token=sample['token'],
        timestamp=sample['timestamp'] * _MICROSECOND,
        scene_name=scene['name'],
        scene_token=scene['token'],
        prev=sample['prev'],
        next=sample['next'],
        instances=_instances(nusc, sample, np.linalg.inv(ego2global @ lidar2ego)),
    )
    lidarseg_path = _lidarseg_path(nusc, lidar['token'])
    if lidarseg_path is not None:
        info['lidarseg_path'] = lidarseg_path
    return info


def _frame_info(
    nusc: NuScenes,
    lidar: dict,
    images: Dict[str, dict],
    num_sweeps: int,
    messages: Optional[List[dict]],
) -> dict:
    """What the sensors say of a LiDAR sweep and the images taken with it."""
    lidar2ego, ego2global = _sensor_pose(nusc, lidar)
    ego = nusc.get('ego_pose', lidar['ego_pose_token'])
    return dict(
        token=lidar['token'],
        timestamp=lidar['timestamp'] * _MICROSECOND,
        ego2global=ego2global,
        can_bus=can_bus_vector(
            ego['rotation'], ego['translation'], _motion(messages, lidar['timestamp'])
        ),
        images={
            name: _image_info(nusc, image, ego2global @ lidar2ego) for name, image in images.items()
        },
        lidar_points=dict(num_pts_feats=5, lidar_path=lidar['filename'], lidar2ego=lidar2ego),
        lidar_sweeps=_sweeps(nusc, lidar, num_sweeps),
    )


def _frames_between(nusc: NuScenes, sample: dict) -> List[tuple]:
    """LiDAR sweeps up to the next keyframe, each with its nearest images.

    Sweeps for which a camera has no image in time are left out.

    Returns:
        Rows of the sweep and of its images by camera.
    """
    cameras = {
        name: _until_keyframe(nusc, sample['data'][name])
        for name in occ3d.CAMERAS
        if name in sample['data']
    }
    frames = []
    for lidar in _until_keyframe(nusc, sample['data']['LIDAR_TOP']):

        def lag(image, time=lidar['timestamp']):
            return abs(image['timestamp'] - time)

        images = {name: min(rows, key=lag) for name, rows in cameras.items() if rows}
        if len(images) == len(cameras) and all(
            lag(image) <= _SAME_TIME for image in images.values()
        ):
            frames.append((lidar, images))
    return frames


def _until_keyframe(nusc: NuScenes, token: str) -> List[dict]:
    """Measurements of a sensor between a keyframe's and the next one's."""
    rows = []
    token = nusc.get('sample_data', token)['next']
    while token:
        row = nusc.get('sample_data', token)
        if row['is_key_frame']:
            return rows
        rows.append(row)
        token = row['next']
    return []  # behind the last keyframe nothing is between two


def _lidarseg_path(nusc: NuScenes, token: str) -> Optional[str]:
    """File of a keyframe's point labels; the test set's table is empty."""
    if 'lidarseg' not in nusc.table_names:
        return None
    try:
        return nusc.get('lidarseg', token)['filename']
    except KeyError:
        return None


def _image_info(nusc: NuScenes, image: dict, lidar2global: np.ndarray) -> dict:
    cam2ego, ego2global = _sensor_pose(nusc, image)
    calibration = nusc.get('calibrated_sensor', image['calibrated_sensor_token'])
    return dict(
        img_path=image['filename'],
        cam2img=np.array(calibration['camera_intrinsic']),
        cam2ego=cam2ego,
        ego2global=ego2global,
        lidar2cam=np.linalg.inv(ego2global @ cam2ego) @ lidar2global,
        timestamp=image['timestamp'] * _MICROSECOND,
        sample_data_token=image['token'],
        height=image['height'],
        width=image['width'],
    )


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
                timestamp=lidar['timestamp'] * _MICROSECOND,
            )
        )
    return sweeps


def _instances(nusc: NuScenes, sample: dict, global2lidar: np.ndarray) -> List[dict]:
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
                bbox_3d=[*box2lidar[:3, 3].tolist(), length, width, height, float(yaw)],
                bbox_label_3d=label,
                bbox_3d_isvalid=box['num_lidar_pts'] + box['num_radar_pts'] > 0,
                num_lidar_pts=box['num_lidar_pts'],
                velocity=velocity[:2].tolist(),
            )
        )
    return instances


def _sensor_pose(nusc: NuScenes, sample_data: dict) -> tuple:
    """``sensor2ego`` and ``ego2global`` of a measurement, (4, 4) each."""
    return (
        _pose(nusc.get('calibrated_sensor', sample_data['calibrated_sensor_token'])),
        _pose(nusc.get('ego_pose', sample_data['ego_pose_token'])),
    )


def _pose(record: dict) -> np.ndarray:
    return pose_matrix(record['rotation'], record['translation'])
