"""From nuScenes tables and Occ3D labels to our info files.

An info file holds ``dict(metainfo, data_list)``; one sample of the list is::

    token, timestamp (s), scene_name, scene_token, sample_idx
    prev, next      sample tokens, '' at the ends of the scene
    ego2global      4x4, ego pose at LiDAR time
    images          {camera: img_path, cam2img 3x3, cam2ego 4x4 (calibration),
                     ego2global 4x4 (ego pose at camera time), lidar2cam 4x4
                     (with the ego motion in between), timestamp (s),
                     sample_data_token, height, width}
    lidar_points    num_pts_feats, lidar_path, lidar2ego 4x4
    lidar_sweeps    newest first: lidar_path, lidar2ego, ego2global, timestamp
    occ_path        gts/<scene>/<token>/labels.npz
    lidarseg_path   where the lidarseg tables are installed
    instances       bbox_3d (x, y, z, l, w, h, yaw; centre, LiDAR frame),
                    bbox_label_3d (index of DETECTION_CLASSES, -1 for other
                    categories), num_lidar_pts, velocity (x, y; m/s, LiDAR)

Matrices are float64 arrays; paths are relative to the data root.
"""
import json
import os.path as osp
from collections import defaultdict
from typing import Dict, Iterator, List, Optional

import numpy as np
from nuscenes import NuScenes
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.utils.splits import create_splits_scenes
from pyquaternion import Quaternion
from rich.progress import track

from radocc_plugin import occ3d
from radocc_plugin.datasets.info_file import INFO_VERSION, save_infos

# mmdet3d's order of labels
DETECTION_CLASSES = ('car', 'truck', 'trailer', 'bus', 'construction_vehicle',
                     'bicycle', 'motorcycle', 'pedestrian', 'traffic_cone',
                     'barrier')
_OFFICIAL_SPLITS = {
    'v1.0-trainval': dict(train='train', val='val'),
    'v1.0-mini': dict(train='mini_train', val='mini_val'),
}
_MICROSECOND = 1e-6


def convert_nuscenes(root_path: str,
                     version: str,
                     out_dir: Optional[str] = None,
                     num_sweeps: int = 10) -> List[str]:
    """Writes ``radocc_infos_train.pkl`` and ``radocc_infos_val.pkl``.

    Nothing is written unless every file that the infos name exists.

    Args:
        root_path: Data root with ``<version>/``, ``samples/``, ``sweeps/`` and
            Occ3D's ``gts/``.
        version: ``'v1.0-trainval'`` and ``'v1.0-mini'`` take the official
            splits, any other version ``<root_path>/<version>/splits.json``
            with ``{"train": [scene names], "val": [...]}``.
        out_dir: Folder of the info files; the data root by default.
        num_sweeps: Past LiDAR sweeps listed for each sample.

    Returns:
        Paths of the files written.

    Raises:
        ValueError: If the tables, the splits or referenced files are missing.
    """
    if not osp.isdir(osp.join(root_path, version)):
        raise ValueError(f'--version {version}: no folder '
                         f'{osp.join(root_path, version)} with tables')
    splits = _load_splits(root_path, version)
    nusc = NuScenes(version, root_path, verbose=False)
    scenes = {scene['name']: scene for scene in nusc.scene}
    unknown = sorted(set().union(*splits.values()) - set(scenes))
    if unknown:
        raise ValueError(f'the splits of {version} name scenes that its tables'
                         f' lack: {", ".join(unknown[:5])} ({len(unknown)})')

    infos = {}
    for split, names in splits.items():
        samples = [(scenes[name], sample) for name in names
                   for sample in _samples(nusc, scenes[name])]
        infos[split] = [
            dict(
                sample_info(nusc, scene, sample, num_sweeps), sample_idx=index)
            for index, (scene, sample) in enumerate(
                track(samples, description=f'{version} {split}'))
        ]
    check_files([info for split in infos.values() for info in split],
                root_path)

    metainfo = dict(
        dataset='nuscenes',
        version=version,
        info_version=INFO_VERSION,
        categories={
            name: i
            for i, name in enumerate(DETECTION_CLASSES)
        })
    paths = []
    for split, data_list in infos.items():
        path = osp.join(out_dir or root_path, f'radocc_infos_{split}.pkl')
        save_infos(dict(metainfo=metainfo, data_list=data_list), path)
        paths.append(path)
    return paths


def _load_splits(root_path: str, version: str) -> Dict[str, List[str]]:
    """Scene names of the train and val split."""
    if version in _OFFICIAL_SPLITS:
        official = create_splits_scenes()
        return {
            split: official[name]
            for split, name in _OFFICIAL_SPLITS[version].items()
        }
    path = osp.join(root_path, version, 'splits.json')
    try:
        with open(path) as file:
            splits = json.load(file)
        return {split: list(splits[split]) for split in ('train', 'val')}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{path} takes {{"train": [scene names], "val": [...]}}, got '
            f'{error!r}') from error


def _samples(nusc: NuScenes, scene: dict) -> Iterator[dict]:
    token = scene['first_sample_token']
    while token:
        sample = nusc.get('sample', token)
        yield sample
        token = sample['next']


def sample_info(nusc: NuScenes, scene: dict, sample: dict,
                num_sweeps: int) -> dict:
    """Info of one keyframe as this module's docstring lists it, without
    ``sample_idx``."""
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
        occ_path=f'gts/{scene["name"]}/{sample["token"]}/labels.npz',
        instances=_instances(nusc, sample, np.linalg.inv(lidar2global)))
    if 'lidarseg' in nusc.table_names:
        info['lidarseg_path'] = nusc.get('lidarseg',
                                         lidar['token'])['filename']
    return info


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
                bbox_3d=[*box2lidar[:3, 3], length, width, height, yaw],
                bbox_label_3d=label,
                num_lidar_pts=box['num_lidar_pts'],
                velocity=velocity[:2]))
    return instances


def _sensor_pose(nusc: NuScenes, sample_data: dict) -> tuple:
    """``sensor2ego`` and ``ego2global`` of a measurement, (4, 4) each."""
    return (_pose(
        nusc.get('calibrated_sensor', sample_data['calibrated_sensor_token'])),
            _pose(nusc.get('ego_pose', sample_data['ego_pose_token'])))


def _pose(record: dict) -> np.ndarray:
    """Pose of a record with ``rotation`` (w, x, y, z) and ``translation``."""
    matrix = Quaternion(record['rotation']).transformation_matrix
    matrix[:3, 3] = record['translation']
    return matrix


def check_files(data_list: List[dict], root_path: str) -> None:
    """Raises one ValueError that lists the missing files by scene."""
    missing = defaultdict(dict)  # ordered, and each file once
    found = set()
    for info in data_list:
        for path in _referenced_files(info):
            if path in found or osp.isfile(osp.join(root_path, path)):
                found.add(path)
            else:
                missing[info['scene_name']][path] = True
    if not missing:
        return
    lines = [
        f'  {scene}: {len(paths)}, e.g. {", ".join(list(paths)[:3])}'
        for scene, paths in list(missing.items())[:20]
    ]
    if len(missing) > 20:
        lines.append(f'  and {len(missing) - 20} more scenes')
    raise ValueError('\n'.join([
        f'{sum(map(len, missing.values()))} files of {len(missing)} scenes '
        f'are missing in {root_path}:', *lines
    ]))


def _referenced_files(info: dict) -> List[str]:
    paths = [image['img_path'] for image in info['images'].values()]
    paths.append(info['lidar_points']['lidar_path'])
    paths.extend(sweep['lidar_path'] for sweep in info['lidar_sweeps'])
    paths.extend(info[name] for name in ('occ_path', 'lidarseg_path')
                 if name in info)
    return paths
