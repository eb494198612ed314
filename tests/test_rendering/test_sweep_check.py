import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from radocc_plugin.geometry import Cameras, VoxelGrid, invert, transform_points
from radocc_plugin.rendering import sweep_depth_difference

GRID = VoxelGrid.from_voxel_size((-40, -40, -1, 40, 40, 5.4), 0.4)


def keyframe(shared):
    """Points (ego frame, own vehicle removed), their pixels and depths by the
    published LiDAR-to-camera matrices, and the cameras in the ego frame."""
    folder = shared / 'data' / 'nuscenes_frame'
    if not folder.is_dir():
        pytest.skip(f'{folder} is absent')
    info = pickle.loads(next(folder.glob('*.pkl')).read_bytes())
    info = info['data_list'][0]
    lidar = info['lidar_points']
    sweep = np.fromfile(folder / lidar['lidar_path'], np.float32)
    in_lidar = torch.from_numpy(sweep.reshape(-1, 5)[:, :3]).double()
    lidar2ego = torch.tensor(lidar['lidar2ego'], dtype=torch.float64)
    points = transform_points(lidar2ego, in_lidar).float()
    own = (points[:, 0].abs() < 3.5) & (points[:, 1].abs() < 1.5)
    points, in_lidar = points[~own], in_lidar[~own]

    images = info['images'].values()
    lidar2cam = torch.tensor(np.stack([i['lidar2cam'] for i in images]), dtype=torch.float64)
    cam2img = torch.tensor(np.stack([np.asarray(i['cam2img'])[:3, :3] for i in images]))
    in_camera = transform_points(lidar2cam, in_lidar.expand(6, -1, -1))
    pixels = in_camera @ cam2img.transpose(-1, -2)
    pixels = (pixels[..., :2] / pixels[..., 2:]).float()
    # With the ego motion between the time stamps of LiDAR and camera.
    cam2ego = (lidar2ego @ invert(lidar2cam)).float()
    cameras = Cameras(cam2img[None].float(), cam2ego[None], torch.eye(4)[None], (900, 1600))
    return points, pixels, in_camera[..., 2].float(), cameras


def median(points, pixels, depth, cameras):
    difference = sweep_depth_difference(points, pixels, depth, cameras, GRID)
    assert len(difference) > 1000
    return float(difference.abs().median())


def test_real_sweep_renders_where_its_points_project(shared):
    assert median(*keyframe(shared)) < 0.4


@pytest.mark.parametrize('wrong', ['mirrored', 'axes', 'inverse', 'camera'])
def test_a_wrong_frame_is_noticed(shared, wrong):
    points, pixels, depth, cameras = keyframe(shared)
    if wrong == 'mirrored':
        points = points * torch.tensor([1.0, -1, 1])
    elif wrong == 'axes':
        points = points[:, [1, 0, 2]]
    elif wrong == 'inverse':
        cameras = replace(cameras, cam2ego=invert(cameras.cam2ego))
    else:
        cameras = replace(cameras, cam2ego=cameras.cam2ego.flip(1))
    assert median(points, pixels, depth, cameras) > 1
