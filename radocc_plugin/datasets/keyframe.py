"""A single nuScenes keyframe without Occ3D labels as a dataset of its own."""

import glob
import io
import os
import os.path as osp
import shutil
from typing import List, Sequence

import numpy as np
import torch
from PIL import Image
from pyquaternion import Quaternion

from radocc_plugin import occ3d
from radocc_plugin.datasets.info_file import INFO_VERSION, load_infos, save_infos
from radocc_plugin.datasets.poses import can_bus_vector
from radocc_plugin.datasets.transforms.lidar import drop_ego_vehicle
from radocc_plugin.fileio import join_inside, read_lidar_file, write_atomically
from radocc_plugin.geometry import Cameras, VoxelGrid, transform_points, traverse

GRID = VoxelGrid(occ3d.POINT_CLOUD_RANGE, occ3d.GRID_SHAPE)
_OTHERS = occ3d.CLASSES.index('others')
_BEAMS_AT_ONCE = 8192  # keeps the traversal below 200 MB


def convert_keyframe(root_path: str, out_dir: str) -> str:
    """Makes a data root in our layout from mmdet3d's demo keyframe.

    Args:
        root_path: Folder with one info pickle in mmdet3d's v2 format and the
            images and the sweep that it names.
        out_dir: The new data root; gets copies of the measurements under
            ``samples/``, ``gts/<scene>/<token>/labels.npz`` from
            :func:`voxelise_keyframe`, and ``radocc_infos_val.pkl``.

    Returns:
        Path of the info file.

    Raises:
        ValueError: If there is not exactly one info pickle, or a file that it
            names is missing or unreadable.
    """
    pickles = glob.glob(osp.join(root_path, '*.pkl'))
    if len(pickles) != 1:
        raise ValueError(
            f'--data-root {root_path} takes a folder with one info pickle, got {len(pickles)}'
        )
    infos = load_infos(pickles[0])
    scene_name = osp.splitext(osp.basename(pickles[0]))[0]
    for info in infos['data_list']:
        for camera, image in info['images'].items():
            image['img_path'] = _copy(root_path, image['img_path'], out_dir, f'samples/{camera}')
            with Image.open(osp.join(out_dir, image['img_path'])) as opened:
                image['width'], image['height'] = opened.size
        lidar = info['lidar_points']
        lidar['lidar_path'] = _copy(root_path, lidar['lidar_path'], out_dir, 'samples/LIDAR_TOP')
        info.update(
            scene_name=scene_name,
            scene_token=scene_name,
            prev='',
            next='',
            can_bus=_can_bus(info),
            lidar_sweeps=[],
            occ_path=f'gts/{scene_name}/{info["token"]}/labels.npz',
        )

        labels = voxelise_keyframe(
            info,
            read_lidar_file(osp.join(out_dir, lidar['lidar_path']), lidar.get('num_pts_feats', 5)),
            infos['metainfo']['categories'],
        )
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **labels)
        write_atomically(osp.join(out_dir, info['occ_path']), buffer.getvalue())

    infos['metainfo']['info_version'] = INFO_VERSION
    path = osp.join(out_dir, 'radocc_infos_val.pkl')
    save_infos(infos, path)
    return path


def _can_bus(info: dict) -> np.ndarray:
    """The vector of a keyframe whose CAN bus messages are not known."""
    pose = np.asarray(info['ego2global'])
    # mmdet3d's pickles hold poses in single precision
    rotation = Quaternion(matrix=pose[:3, :3], atol=1e-4)
    return can_bus_vector(rotation.elements, pose[:3, 3])


def _copy(root_path: str, name: str, out_dir: str, folder: str) -> str:
    source = join_inside(root_path, name, f'the info file of {root_path}')
    if not osp.isfile(source):
        raise ValueError(f'{source} is named by the info pickle, but missing')
    relative = osp.join(folder, osp.basename(name))
    os.makedirs(osp.join(out_dir, folder), exist_ok=True)
    shutil.copyfile(source, osp.join(out_dir, relative))
    return relative


def voxelise_keyframe(info: dict, points: np.ndarray, categories: dict) -> dict:
    """Occ3D-shaped labels from one sweep and its boxes: a stand-in.

    Real Occ3D labels accumulate many sweeps and name every surface. Here a
    voxel is occupied only if this sweep hit it; it has the class that most of
    its points have, where points inside a box have the class of the box and
    all others, road and houses alike, are ``others`` (0). Good for proving
    geometry and running every stage; a score against it says nothing.

    Args:
        info: Info of the keyframe, mmdet3d v2 fields.
        points: The sweep, LiDAR frame, shape (P, 3 or more).
        categories: Detection class name -> ``bbox_label_3d``; the names are
            those of Occ3D's classes.

    Returns:
        uint8 arrays (200, 200, 16): ``semantics``; ``mask_lidar``, voxels
        that a beam crossed or hit; ``mask_camera``, those of ``mask_lidar``
        whose centre projects into an image.
    """
    points = drop_ego_vehicle(points)[:, :3].astype(np.float64)
    points = torch.from_numpy(points)
    classes = _classes_of_points(points, info['instances'], categories)
    lidar2ego = torch.tensor(info['lidar_points']['lidar2ego'], dtype=torch.float64)
    points = transform_points(lidar2ego, points)

    cells, inside = GRID.index(points)
    hit = GRID.ravel(cells[inside])
    votes = torch.zeros(GRID.num_voxels, occ3d.NUM_CLASSES)
    votes.index_put_((hit, classes[inside]), torch.ones(len(hit)), accumulate=True)
    semantics = torch.where(votes.any(1), votes.argmax(1), occ3d.FREE)

    mask_lidar = torch.zeros(GRID.num_voxels, dtype=torch.bool)
    mask_lidar[hit] = True
    for ends in points.split(_BEAMS_AT_ONCE):
        starts = lidar2ego[:3, 3].expand_as(ends)
        beams = traverse(starts, ends - starts, GRID, max_parameter=1.0)
        mask_lidar[beams.voxel] = True
    mask_camera = mask_lidar & _centres_in_view(list(info['images'].values()), lidar2ego)
    return {
        name: volume.reshape(GRID.shape).numpy().astype(np.uint8)
        for name, volume in dict(
            semantics=semantics, mask_lidar=mask_lidar, mask_camera=mask_camera
        ).items()
    }


def _classes_of_points(
    points: torch.Tensor, instances: List[dict], categories: dict
) -> torch.Tensor:
    """Occ3D class of LiDAR-frame points (P, 3), int64, (P,)."""
    class_of_label = {label: occ3d.CLASSES.index(name) for name, label in categories.items()}
    classes = torch.full((len(points),), _OTHERS)
    for instance in instances:
        box = torch.tensor(instance['bbox_3d'], dtype=torch.float64)
        cosine, sine = torch.cos(box[6]), torch.sin(box[6])
        x, y, z = (points - box[:3]).unbind(-1)
        along = torch.stack((cosine * x + sine * y, cosine * y - sine * x, z), -1)
        inside = (along.abs() <= box[3:6] / 2).all(-1)
        # label -1: boxes of animals, debris and the like
        classes[inside] = class_of_label.get(instance['bbox_label_3d'], _OTHERS)
    return classes


def _centres_in_view(images: Sequence[dict], lidar2ego: torch.Tensor) -> torch.Tensor:
    """Voxels whose centre projects into an image, bool, (X * Y * Z,)."""
    in_view = torch.zeros(GRID.num_voxels, dtype=torch.bool)
    centres = GRID.centres(dtype=torch.float64).reshape(1, -1, 3)
    for image in images:
        lidar2cam = torch.tensor(image['lidar2cam'], dtype=torch.float64)
        size = torch.tensor([image['width'], image['height']])
        camera = Cameras(
            torch.tensor(image['cam2img'], dtype=torch.float64)[None, None],
            (lidar2ego @ torch.linalg.inv(lidar2cam))[None, None],
            torch.eye(4, dtype=torch.float64)[None],
            image_size=(image['height'], image['width']),
        )
        pixels, depths = camera.project(centres)
        seen = (pixels >= 0) & (pixels < size)
        in_view |= (seen.all(-1) & (depths > 0))[0, 0]
    return in_view
