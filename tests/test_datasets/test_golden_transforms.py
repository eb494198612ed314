"""Numbers of the published BEVDet pipeline on the real keyframe."""

import pickle

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from PIL import Image

from radocc_plugin.datasets import (
    AugmentMultiViewImages,
    LoadLidarPoints,
    LoadMultiViewImages,
    Occ3DNuScenesDataset,
    PackOccInputs,
    PointsToDepthMaps,
)
from radocc_plugin.structures import OccDataPreprocessor

FRAMES = ('imgs_current', 'imgs_adjacent1', 'imgs_adjacent2')


@pytest.fixture
def case(golden, shared):
    return golden.case('transforms')


def _old_info(case, index):
    """The current (0) or an earlier frame as BEVDet's pickles hold it."""
    frame = [case.config['info'], *case.config['adjacent']][index]
    cams = {
        name: dict(
            camera, data_path=f'samples/{camera["data_path"]}', timestamp=0, sample_data_token=name
        )
        for name, camera in frame['cams'].items()
    }
    return dict(
        frame,
        cams=cams,
        token=f'token{index}',
        timestamp=10 - index,
        scene_token='scene',
        scene_name='scene',
        lidar_path=f'samples/{case.config["lidar_file"]}',
        sweeps=[],
    )


@pytest.fixture
def published(case, shared, tmp_path, monkeypatch):
    """The case's frames after our image pipeline with the case's draws."""
    (tmp_path / 'samples').symlink_to(shared / 'data/nuscenes_frame')
    path = tmp_path / 'bevdetv2-nuscenes_infos_val.pkl'
    infos = [_old_info(case, index) for index in range(3)]
    path.write_bytes(pickle.dumps(dict(infos=infos, metadata={})))
    draws = iter(
        (tuple(aug['resize_dims']), tuple(aug['crop']), aug['flip'], aug['rotate'])
        for aug in case.config['aug']
    )
    monkeypatch.setattr(AugmentMultiViewImages, '_draw', lambda *args: next(draws))
    dataset = Occ3DNuScenesDataset(
        ann_file=str(path),
        data_root=str(tmp_path),
        cams=case.config['cams'],
        key_ego='CAM_FRONT_LEFT',
        adjacent=(1, 2),
        pipeline=[LoadMultiViewImages(), AugmentMultiViewImages(case.config['input_size'])],
    )
    return dataset[2]


def test_golden_images_as_the_published_network_sees_them(golden, case, published):
    batch = pseudo_collate([PackOccInputs()(published)])
    inputs = OccDataPreprocessor(channel_order='bgr')(batch)['inputs']
    frames = torch.cat([inputs['imgs'][:, None], inputs['adjacent_imgs']], 1)
    for name, images in zip(FRAMES, frames[0]):
        golden.compare(case, name, images)
    # published models take the frames of a camera one after the other
    golden.compare(case, 'imgs', frames.transpose(1, 2).flatten(0, 2))


def test_golden_matrices(golden, case, published):
    sample = PackOccInputs()(published)['data_samples']
    matrices = sample.img_aug_mat
    rotation = np.tile(np.eye(3), (6, 1, 1))
    rotation[:, :2, :2] = matrices[:, :2, :2]
    translation = np.zeros((6, 3))
    translation[:, :2] = matrices[:, :2, 3]
    # all three frames have those of the current one
    golden.compare(case, 'post_rot', np.tile(rotation, (3, 1, 1)))
    golden.compare(case, 'post_tran', np.tile(translation, (3, 1)))
    golden.compare(case, 'intrin', np.tile(sample.cam2img, (3, 1, 1)))
    sensor2ego, ego2global = (
        case.arrays[f'out/{name}/whole'].astype(np.float64) for name in ('sensor2ego', 'ego2global')
    )
    expected = np.linalg.inv(ego2global[0]) @ ego2global @ sensor2ego
    cam2ego = np.stack([sample.cam2ego, *sample.adjacent_cam2ego])
    np.testing.assert_allclose(cam2ego.reshape(-1, 4, 4), expected, atol=2e-4)
    # key ego poses are those at the first camera's timestamps
    poses = np.stack([sample.ego2global, *sample.adjacent_ego2global])
    np.testing.assert_allclose(poses, ego2global[::6], atol=2e-4)


def test_golden_lidar2img(golden, case, published):
    cam2img = np.tile(np.eye(4), (6, 1, 1))
    cam2img[:, :3, :3] = published['cam2img']
    lidar2img = cam2img @ np.linalg.inv(published['cam2ego']) @ published['lidar2ego']
    golden.compare(case, 'lidar2img', lidar2img.astype(np.float32))


def test_golden_depth_maps(golden, case, published):
    near, far, _ = case.config['depth']
    published = LoadLidarPoints(ego_vehicle=(0, 0, 0, 0))(published)
    maps = PointsToDepthMaps((near, far), pixel_centre=0.0)(published)
    golden.compare(case, 'gt_depth', maps['gt_depth'])
    counts = (maps['gt_depth'] > 0).sum((1, 2))
    golden.compare(case, 'gt_depth_count', counts.astype(np.float32))


def test_golden_test_time_augmentation(case):
    rows = case.arrays['out/test_aug/whole']
    for input_size, row in zip(case.config['test_sizes'], rows):
        results = dict(img=[Image.new('RGB', (1600, 900))], ori_shape=(900, 1600))
        matrix = AugmentMultiViewImages(input_size)(results)['img_aug_mat'][0]
        factor, _, _, left, top, right, bottom, _ = row
        expected = np.diag([factor, factor, 1, 1])
        expected[:2, 3] = -left, -top
        np.testing.assert_allclose(matrix, expected, rtol=1e-6)
        assert results['img_shape'] == (bottom - top, right - left)
