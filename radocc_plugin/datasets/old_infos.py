"""Info pickles of the codebases before MMEngine, in our layout.

- ``bevdetv2-*`` and ``bevdetv3-*`` of BEVDet, FlashOCC, FB-OCC and RadOcc:
  ``dict(infos, metadata)`` with mmdet3d 1.0's fields, ``scene_token`` and
  ``occ_path`` (a folder), without ``prev`` (FB-OCC has it).
- ``occ_infos_temporal_*`` of BEVFormer's occupancy baseline: the same with
  ``prev``, ``next``, ``can_bus``, ``occ_gt_path`` (a file).
- ``nuscenes_infos_*`` of mmdet3d 0.x and, in the layout of v2, of mmdet3d >=
  1.1: without scenes and labels, which the tables of nuScenes tell.

Boxes of mmdet3d 0.17 are known by their sizes. Paths are cut to start at
their last ``samples/``, ``sweeps/`` or ``gts/``: relative to the data root;
those written on Windows, too. A pickle of the test split has neither labels
nor names of scenes: a sample's ``scene_name`` is then its ``scene_token``.
"""

import json
import logging
import os.path as osp
import re
from collections import defaultdict
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
from mmengine.logging import print_log
from pyquaternion import Quaternion

from radocc_plugin.datasets.poses import MOTION, as_matrix, can_bus_vector, pose_matrix

# mmdet3d's order of labels
DETECTION_CLASSES = (
    'car',
    'truck',
    'trailer',
    'bus',
    'construction_vehicle',
    'bicycle',
    'motorcycle',
    'pedestrian',
    'traffic_cone',
    'barrier',
)
_MICROSECOND = 1e-6
# Objects that are always longer than wide, and one that is always wider.
_LONG = ('car', 'truck', 'trailer', 'bus', 'construction_vehicle', 'bicycle', 'motorcycle')
_WIDE = 'barrier'
_SAME_BOX = 0.1  # metres between the centres of one box in two frames
_UNDER_ROOT = re.compile(r'^(?:.*/)?((?:samples|sweeps|gts|lidarseg)/.+)$')


class Tables(Dict[str, dict]):
    """``scene_token``, ``scene_name``, ``prev`` and ``next`` of each sample.

    Args:
        roots: Folders in which ``<version>/sample.json`` and ``scene.json``
            may lie; empty if they are in none.
        version: ``v1.0-trainval`` and the like.
    """

    def __init__(self, roots: Sequence[str], version: str) -> None:
        super().__init__()
        for root in roots:
            names = [osp.join(root, version, f'{name}.json') for name in ('scene', 'sample')]
            if version and all(map(osp.isfile, names)):
                break
        else:
            return
        scenes, samples = map(_read_json, names)
        scene_names = {scene['token']: scene['name'] for scene in scenes}
        for sample in samples:
            self[sample['token']] = dict(
                scene_token=sample['scene_token'],
                scene_name=scene_names[sample['scene_token']],
                prev=sample['prev'],
                next=sample['next'],
            )


def _read_json(path: str) -> list:
    with open(path) as file:
        return json.load(file)


def from_old_infos(old: dict, roots: Sequence[str] = ()) -> dict:
    """An old info file in our layout.

    Args:
        old: ``dict(infos=[...], metadata=...)`` as described above.
        roots: Where the tables may be, for a file without scenes.

    Returns:
        ``dict(metainfo, data_list)`` as ``nuscenes_infos`` describes it,
        scene by scene in the order of time. (The old code sorts all samples by
        time, which is the same unless two cars drove at once.)

    Raises:
        KeyError, TypeError, ValueError: If an entry lacks what it should
            have; the caller adds the file's name.
    """
    version = old.get('metadata', {}).get('version', '')
    infos = sorted(old['infos'], key=lambda info: info['timestamp'])
    if any('scene_token' not in info for info in infos):
        tables = Tables(roots, version)
        infos = [dict(info, **_of_tables(info['token'], tables, version)) for info in infos]
    wide_first = boxes_are_old(infos)
    scenes = defaultdict(list)
    for info in infos:
        scenes[info['scene_token']].append(_sample(info, wide_first))
    for scene in scenes.values():
        _link(scene)
    data_list = [info for scene in scenes.values() for info in scene]
    for index, info in enumerate(data_list):
        info['sample_idx'] = index
    metainfo = dict(
        dataset='nuscenes',
        version=version,
        info_version='old',
        categories={n: i for i, n in enumerate(DETECTION_CLASSES)},
    )
    return dict(metainfo=metainfo, data_list=data_list)


def _of_tables(token: str, tables: Tables, version: str) -> dict:
    if token not in tables:
        raise ValueError(
            f'sample {token} has no scene_token, which the tables '
            f'{version or "<version>"}/sample.json and scene.json of nuScenes '
            'tell; put them into the data root, or write the file again with '
            'tools/create_data.py'
        )
    return tables[token]


def complete_v2_infos(infos: dict, roots: Sequence[str] = ()) -> None:
    """Adds to a v2 file of mmdet3d what the tables tell, in place.

    That are scenes, neighbours in time and label paths; sweeps and paths get
    our layout. Without tables the file stays as it is.

    Args:
        infos: ``dict(metainfo, data_list)``.
        roots: Where the tables may be.
    """
    data_list = infos['data_list']
    if not data_list or 'scene_token' in data_list[0]:
        return
    version = infos.get('metainfo', {}).get('version', '')
    tables = Tables(roots, version)
    if not tables:
        return
    for index, info in enumerate(data_list):
        info.update(_of_tables(info['token'], tables, version))
        info.setdefault('sample_idx', index)
        for name, image in info['images'].items():
            image['img_path'] = _under_root(image['img_path'], f'samples/{name}')
        lidar = info['lidar_points']
        lidar['lidar_path'] = _under_root(lidar['lidar_path'], 'samples/LIDAR_TOP')
        info['lidar_sweeps'] = [
            dict(
                lidar_path=_under_root(sweep['lidar_points']['lidar_path'], 'sweeps/LIDAR_TOP'),
                lidar2ego=as_matrix(sweep['lidar_points']['lidar2ego']),
                ego2global=as_matrix(sweep['ego2global']),
                timestamp=sweep['timestamp'],
            )
            for sweep in info.get('lidar_sweeps', ())
        ]
        pose = as_matrix(info['ego2global'])
        # mmdet3d's pickles hold poses in single precision
        rotation = Quaternion(matrix=pose[:3, :3], atol=1e-4)
        info['can_bus'] = can_bus_vector(rotation.elements, pose[:3, 3])
        if 'pts_semantic_mask_path' in info:
            info['lidarseg_path'] = _under_root(
                info['pts_semantic_mask_path'], f'lidarseg/{version}'
            )
        if 'test' not in version:
            info['occ_path'] = f'gts/{info["scene_name"]}/{info["token"]}/labels.npz'


def boxes_are_old(infos: Sequence[dict]) -> bool:
    """Whether boxes are those of mmdet3d 0.17: width first, yaw clockwise.

    BEVDet's own ``ann_infos`` tell it, which are (length, width) in the ego
    frame; else that vehicles are longer than wide.

    Args:
        infos: All old infos of a file.
    """
    votes = 0
    for info in infos:
        boxes = np.array(info.get('gt_boxes', ()), np.float64)
        if not len(boxes):
            continue
        width_first = boxes[:, 3] < boxes[:, 4]
        own = np.array((info.get('ann_infos') or [()])[0], np.float64)
        if len(own):
            lidar2ego = _pose(info, 'lidar2ego')
            centres = boxes[:, :3] @ lidar2ego[:3, :3].T + lidar2ego[:3, 3]
            away = np.linalg.norm(centres[:, None] - own[None, :, :3], axis=2)
            same = away.min(1) < _SAME_BOX
            long_first = own[away.argmin(1), 3] > own[away.argmin(1), 4]
            votes += np.where(width_first == long_first, 1, -1)[same].sum()
        else:
            names = np.asarray(info['gt_names'])
            votes += np.where(width_first, 1, -1)[np.isin(names, _LONG)].sum()
            votes += np.where(width_first, -1, 1)[names == _WIDE].sum()
    if votes == 0 and any(len(info.get('gt_boxes', ())) for info in infos):
        print_log(
            'an old info file has boxes of no vehicle: they are taken as '
            '(length, width) with the yaw of mmdet3d >= 1.0',
            'current',
            logging.WARNING,
        )
    return bool(votes > 0)


def _sample(old: dict, wide_first: bool) -> dict:
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
        can_bus=can_bus_vector(old['ego2global_rotation'], old['ego2global_translation'], motion),
        images={
            name: _image(camera, ego2global @ lidar2ego) for name, camera in old['cams'].items()
        },
        lidar_points=dict(
            num_pts_feats=5, lidar_path=_under_root(old['lidar_path']), lidar2ego=lidar2ego
        ),
        lidar_sweeps=[
            dict(
                lidar_path=_under_root(sweep['data_path']),
                lidar2ego=_pose(sweep, 'sensor2ego'),
                ego2global=_pose(sweep, 'ego2global'),
                timestamp=sweep['timestamp'] * _MICROSECOND,
            )
            for sweep in old['sweeps']
        ],
        instances=_instances(old, wide_first),
    )
    if occ_path is not None:
        info['occ_path'] = occ_path
    if 'pts_semantic_mask_path' in old:
        info['lidarseg_path'] = _under_root(old['pts_semantic_mask_path'])
    return info


def _image(camera: dict, lidar2global: np.ndarray) -> dict:
    cam2ego, ego2global = (_pose(camera, 'sensor2ego'), _pose(camera, 'ego2global'))
    return dict(
        img_path=_under_root(camera['data_path']),
        cam2img=np.array(camera['cam_intrinsic'], np.float64),
        cam2ego=cam2ego,
        ego2global=ego2global,
        lidar2cam=np.linalg.inv(ego2global @ cam2ego) @ lidar2global,
        timestamp=camera['timestamp'] * _MICROSECOND,
        sample_data_token=camera['sample_data_token'],
    )


def _pose(record: dict, name: str) -> np.ndarray:
    return pose_matrix(record[f'{name}_rotation'], record[f'{name}_translation'])


def _under_root(path: str, folder: Optional[str] = None) -> str:
    """A path below the data root; that of a bare name is in ``folder``."""
    path = path.replace('\\', '/')
    if folder is not None and '/' not in path:
        return f'{folder}/{path}'
    found = _UNDER_ROOT.search(path)
    if not found:
        raise ValueError(f'path {path!r} takes a folder samples, sweeps or gts in it')
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


def _instances(old: dict, wide_first: bool) -> List[dict]:
    if 'gt_boxes' not in old:
        return []
    boxes = np.array(old['gt_boxes'], np.float64)
    if wide_first:
        # mmdet3d 0.17: width before length, yaw clockwise from -y
        boxes[:, 3:5] = boxes[:, [4, 3]]
        boxes[:, 6] = -boxes[:, 6] - np.pi / 2
    return [
        dict(
            bbox_3d=box.tolist(),
            bbox_label_3d=DETECTION_CLASSES.index(name) if name in DETECTION_CLASSES else -1,
            bbox_3d_isvalid=bool(valid),
            num_lidar_pts=int(num_lidar_pts),
            velocity=velocity,
        )
        for box, name, valid, num_lidar_pts, velocity in zip(
            boxes,
            old['gt_names'],
            old['valid_flag'],
            old['num_lidar_pts'],
            np.asarray(old['gt_velocity']).tolist(),
        )
    ]


def _link(scene: List[dict]) -> None:
    """Sets ``prev`` and ``next`` along a scene where the file does not."""
    tokens = ['', *(info['token'] for info in scene), '']
    for index, info in enumerate(scene):
        if info['prev'] is None:
            info['prev'] = tokens[index]
        if info['next'] is None:
            info['next'] = tokens[index + 2]
