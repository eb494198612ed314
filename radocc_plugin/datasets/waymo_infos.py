"""Info files of Occ3D-Waymo, from its poses and mmdet3d's KITTI layout."""

import io
import os.path as osp
import pickle
from typing import Dict, List

import numpy as np
from PIL import Image
from pyquaternion import Quaternion

from radocc_plugin.datasets.file_check import check_files
from radocc_plugin.datasets.info_file import INFO_VERSION, DataUnpickler, save_infos
from radocc_plugin.datasets.poses import as_matrix, can_bus_vector
from radocc_plugin.fileio import read_bytes

# Cameras in the order of the folders image_0 ... image_4.
CAMERAS = ('CAM_FRONT', 'CAM_FRONT_LEFT', 'CAM_FRONT_RIGHT', 'CAM_SIDE_LEFT', 'CAM_SIDE_RIGHT')
# Where each of them is in the poses of a frame.
_POSE_INDEX = (0, 1, 3, 2, 4)
# Splits: the file of poses, the folder of labels, and the first digit of a
# frame's number in the KITTI layout, which has both splits in training/.
_SPLITS = dict(train=('cam_infos.pkl', 'training', 0), val=('cam_infos_vali.pkl', 'validation', 1))
_FRAME_SECONDS = 0.1
_POINT_COLUMNS = 6  # x, y, z, intensity, elongation, lag
_NUM_SWEEPS = 10


def convert_waymo(root_path: str, interval: int = 1, progress: bool = True) -> List[str]:
    """Writes ``radocc_infos_train.pkl`` and ``radocc_infos_val.pkl``.

    Args:
        root_path: Data root with ``kitti_format/training/`` (images and
            ``velodyne`` of mmdet3d's converter) and ``occ3d/`` (labels,
            ``cam_infos.pkl``, ``cam_infos_vali.pkl``).
        interval: Every so many frames of a scene become samples; published
            trainings take every fifth.
        progress: Whether to show a progress bar.

    Returns:
        Paths of the files written.

    Raises:
        ValueError: If a file is missing or does not fit; names it.

    CVT-Occ @8291052, docs/dataset.md and its dataset: frame rate, image
    sizes, and that poses 2 and 3 belong to the images 3 and 2.
    """
    if interval < 1:
        raise ValueError(f'--interval takes at least 1, got {interval}')
    paths = []
    for split, (poses, _, _) in _SPLITS.items():
        data_list = []
        for scene, frames in _read_poses(osp.join(root_path, 'occ3d', poses)).items():
            data_list += _scene_infos(root_path, split, scene, frames, interval)
        if not data_list:
            raise ValueError(f'{osp.join(root_path, "occ3d", poses)} holds no frame')
        for index, info in enumerate(data_list):
            info['sample_idx'] = index
        check_files(data_list, root_path, progress)
        paths.append(osp.join(root_path, f'radocc_infos_{split}.pkl'))
        save_infos(
            dict(
                metainfo=dict(dataset='waymo', version='v1.3.1', info_version=INFO_VERSION),
                data_list=data_list,
            ),
            paths[-1],
        )
    return paths


def _read_poses(path: str) -> Dict[int, Dict[int, list]]:
    try:
        poses = DataUnpickler(io.BytesIO(read_bytes(path))).load()
        return {
            int(scene): {int(f): frame for f, frame in _items(frames)}
            for scene, frames in _items(poses)
        }
    except (
        OSError,
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(
            f'{path} takes the poses of Occ3D-Waymo, [scene][frame][camera]: {error!r}'
        ) from error


def _items(container):
    return container.items() if isinstance(container, dict) else enumerate(container)


def _scene_infos(
    root_path: str, split: str, scene: int, frames: Dict[int, list], interval: int
) -> List[dict]:
    """Infos of a scene's samples in the order of time."""
    _, labels, digit = _SPLITS[split]
    taken = sorted(frames)[::interval]
    tokens = [f'{digit}{scene:03d}{frame:03d}' for frame in taken]
    infos = []
    for place, (frame, token) in enumerate(zip(taken, tokens)):
        where = f'frame {frame} of scene {scene} of {split}'
        ego2global = _pose(frames[frame], 0, 'ego2global', where)
        sweeps = [
            dict(
                lidar_path=_lidar_path(digit, scene, past),
                lidar2ego=np.eye(4),
                ego2global=_pose(frames[past], 0, 'ego2global', where),
                timestamp=past * _FRAME_SECONDS,
            )
            for past in sorted(frames, reverse=True)
            if frame - _NUM_SWEEPS <= past < frame
        ]
        infos.append(
            dict(
                token=token,
                timestamp=frame * _FRAME_SECONDS,
                scene_name=f'{labels}-{scene:03d}',
                scene_token=f'{labels}-{scene:03d}',
                prev=tokens[place - 1] if place else '',
                next=tokens[place + 1] if place + 1 < len(tokens) else '',
                ego2global=ego2global,
                can_bus=_can_bus(ego2global),
                images={
                    camera: _image(root_path, frames[frame], number, token, where)
                    for number, camera in enumerate(CAMERAS)
                },
                lidar_points=dict(
                    num_pts_feats=_POINT_COLUMNS,
                    lidar_path=_lidar_path(digit, scene, frame),
                    lidar2ego=np.eye(4),
                ),
                lidar_sweeps=sweeps,
                occ_path=f'occ3d/{labels}/{scene:03d}/{frame:03d}_04.npz',
                instances=[],
            )
        )
    return infos


def _lidar_path(digit: int, scene: int, frame: int) -> str:
    return f'kitti_format/training/velodyne/{digit}{scene:03d}{frame:03d}.bin'


def _image(root_path: str, frame: list, number: int, token: str, where: str) -> dict:
    path = next(
        (
            p
            for p in (
                f'kitti_format/training/image_{number}/{token}.{suffix}'
                for suffix in ('jpg', 'png')
            )
            if osp.isfile(osp.join(root_path, p))
        ),
        None,
    )
    if path is None:
        raise ValueError(
            f'{root_path} has no kitti_format/training/image_'
            f'{number}/{token}.jpg or .png, of {where}'
        )
    with Image.open(osp.join(root_path, path)) as image:
        width, height = image.size
    index = _POSE_INDEX[number]
    cam2ego = _pose(frame, index, 'sensor2ego', where)
    return dict(
        img_path=path,
        cam2img=_pose(frame, index, 'intrinsics', where)[:3, :3],
        cam2ego=cam2ego,
        ego2global=_pose(frame, index, 'ego2global', where),
        lidar2cam=np.linalg.inv(cam2ego),
        height=height,
        width=width,
    )


def _pose(frame: list, index: int, name: str, where: str) -> np.ndarray:
    try:
        matrix = as_matrix(frame[index][name])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f'{where}: camera {index} has no {name} in the poses ({error!r})'
        ) from error
    if (
        matrix.ndim != 2
        or min(matrix.shape) < 3
        or (name != 'intrinsics' and matrix.shape != (4, 4))
    ):
        raise ValueError(
            f'{where}: {name} of camera {index} takes a 4 x 4 matrix, got shape {matrix.shape}'
        )
    return matrix


def _can_bus(ego2global: np.ndarray) -> np.ndarray:
    rotation = Quaternion(matrix=ego2global[:3, :3], atol=1e-4, rtol=1e-4)
    return can_bus_vector(rotation.elements, ego2global[:3, 3])
