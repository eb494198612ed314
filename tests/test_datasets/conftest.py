"""A data root in the real layout, small enough to make for every test."""

import copy
import json

import numpy as np
import pytest
from PIL import Image

from radocc_plugin import occ3d
from radocc_plugin.datasets.info_file import save_infos
from radocc_plugin.segments import write_label_map

HEIGHT, WIDTH = 45, 80


def pose(yaw=0.0, translation=(0, 0, 0)):
    """A rotation about z and a translation, (4, 4)."""
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    matrix[:3, 3] = translation
    return matrix


def _write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    array.tofile(path)
    return path


def _make_info(root, index, generator):
    """Writes one keyframe; the ego drives 1 m between two measurements."""
    token = f'token{index}'
    lidar2ego = pose(-np.pi / 2, (0.9, 0, 1.8))
    ego2global = pose(0.3, (100 + 10 * index, 50, 0))
    images = {}
    for order, name in enumerate(occ3d.CAMERAS):
        # optical axes 60 degrees apart: camera z ahead, x right, y down
        cam2ego = pose(1 - order, (1, 0, 1.5))
        cam2ego[:3, :3] = cam2ego[:3, :3] @ [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
        camera_ego2global = ego2global @ pose(0.01, (-1, 0, 0))
        img_path = f'samples/{name}/{token}.jpg'
        path = root / img_path
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        write_label_map(
            root / f'segments/samples/{name}/{token}.png',
            np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH),
        )
        images[name] = dict(
            img_path=img_path,
            cam2img=np.array([[60.0, 0, 40], [0, 60, 22], [0, 0, 1]]),
            cam2ego=cam2ego,
            ego2global=camera_ego2global,
            lidar2cam=np.linalg.inv(camera_ego2global @ cam2ego) @ ego2global @ lidar2ego,
            timestamp=1000.0 + index,
        )
    lidar_paths = []
    for folder in ('samples', 'sweeps'):
        lidar_paths.append(f'{folder}/LIDAR_TOP/{token}.pcd.bin')
        points = generator.uniform(-30, 30, (400, 5)) * [1, 1, 0.1, 0, 0]
        _write(root / lidar_paths[-1], points.astype(np.float32))
    occ_path = root / f'gts/scene/{token}/labels.npz'
    occ_path.parent.mkdir(parents=True)
    np.savez_compressed(
        occ_path,
        semantics=generator.integers(0, 18, occ3d.GRID_SHAPE, np.uint8),
        mask_lidar=generator.integers(0, 2, occ3d.GRID_SHAPE, np.uint8),
        mask_camera=generator.integers(0, 2, occ3d.GRID_SHAPE, np.uint8),
    )
    return dict(
        sample_idx=index,
        token=token,
        timestamp=1000.0 + index,
        scene_name='scene',
        scene_token='scene-token',
        prev='',
        next='',
        ego2global=ego2global,
        images=images,
        lidar_points=dict(num_pts_feats=5, lidar_path=lidar_paths[0], lidar2ego=lidar2ego),
        lidar_sweeps=[
            dict(
                lidar_path=lidar_paths[1],
                lidar2ego=lidar2ego,
                ego2global=ego2global @ pose(0.02, (-2, 0, 0)),
                timestamp=999.95 + index,
            )
        ],
        occ_path=f'gts/scene/{token}/labels.npz',
        instances=[],
    )


@pytest.fixture(scope='session')
def world(tmp_path_factory):
    """A synthetic world of three scenes with its info files; read only.

    The CAN bus expansion is there, but has no messages of the val scene.
    """
    from radocc_plugin.datasets.info_converter import convert_nuscenes
    from radocc_plugin.synthetic import generate

    root = tmp_path_factory.mktemp('world')
    generate(
        root,
        scenes_train=2,
        scenes_val=1,
        frames=4,
        image_size=(80, 45),
        image_sweeps=1,
        workers=1,
        progress=False,
    )
    samples = json.loads((root / 'v1.0-synthetic/sample.json').read_text())
    messages = []
    for index, time in enumerate(sorted(sample['timestamp'] for sample in samples)):
        messages.append(
            dict(
                accel=[index, 0.1, 9.8],
                orientation=[1, 0, 0, 0],
                pos=[0, 0, 0],
                rotation_rate=[0.01, 0.02, index],
                utime=time + 1000,
                vel=[5 + index, 0, 0],
            )
        )
    (root / 'can_bus').mkdir()
    for name in ('synthetic-train-0001', 'synthetic-train-0002'):
        (root / f'can_bus/{name}_pose.json').write_text(json.dumps(messages))
    convert_nuscenes(str(root), 'v1.0-synthetic', progress=False)
    return root


@pytest.fixture(scope='session')
def _pristine(tmp_path_factory):
    root = tmp_path_factory.mktemp('tiny')
    generator = np.random.default_rng(0)
    return root, [_make_info(root, index, generator) for index in range(2)]


@pytest.fixture
def tiny_infos(_pristine):
    """Info list of two keyframes; change it as you like."""
    return copy.deepcopy(_pristine[1])


@pytest.fixture
def tiny_root(_pristine):
    """Data root of ``tiny_infos``; not to be written to."""
    return _pristine[0]


@pytest.fixture
def make_dataset(_pristine, tmp_path):
    """Builds the dataset over an info list."""
    from radocc_plugin.datasets import Occ3DNuScenesDataset

    def make(infos, **kwargs):
        path = tmp_path / 'infos.pkl'
        save_infos(dict(metainfo={}, data_list=infos), path)
        kwargs.setdefault('data_root', str(_pristine[0]))
        # tests add files of their own, elsewhere
        kwargs.setdefault('outside_root', True)
        return Occ3DNuScenesDataset(ann_file=str(path), **kwargs)

    return make


@pytest.fixture
def sample(make_dataset, tiny_infos):
    """What the dataset gives to the pipeline for the first keyframe."""
    return make_dataset(tiny_infos).get_data_info(0)
