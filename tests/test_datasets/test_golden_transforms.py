"""Numbers of the published BEVDet pipeline on the real keyframe."""
import numpy as np
import pytest
from PIL import Image
from pyquaternion import Quaternion

from radocc_plugin.datasets import (AugmentMultiViewImages, LoadLidarPoints,
                                    LoadMultiViewImages, Occ3DNuScenesDataset,
                                    PackOccInputs, PointsToDepthMaps)
from radocc_plugin.datasets.info_file import save_infos
from radocc_plugin.datasets.transforms.images import (
    augment_image, image_augmentation_matrix)
from radocc_plugin.structures import OccDataPreprocessor


def _pose(record, name):
    matrix = Quaternion(record[f'{name}_rotation']).transformation_matrix
    matrix[:3, 3] = record[f'{name}_translation']
    return matrix


@pytest.fixture
def case(golden):
    module, folder = golden
    return module.load_case(str(folder / 'transforms.json'))


@pytest.fixture
def published(case, shared, tmp_path):
    """The case's frame after our image pipeline with the case's draws."""
    frame = case.config['info']
    info = dict(
        sample_idx=0,
        token='token',
        timestamp=0.,
        scene_name='scene',
        scene_token='scene',
        prev='',
        next='',
        ego2global=_pose(frame, 'ego2global'),
        images={
            name: dict(
                img_path=camera['data_path'],
                cam2img=camera['cam_intrinsic'],
                cam2ego=_pose(camera, 'sensor2ego'),
                ego2global=_pose(camera, 'ego2global'))
            for name, camera in frame['cams'].items()
        },
        lidar_points=dict(
            lidar_path=case.config['lidar_file'],
            lidar2ego=_pose(frame, 'lidar2ego')),
        lidar_sweeps=[])
    path = tmp_path / 'infos.pkl'
    save_infos(dict(metainfo={}, data_list=[info]), path)
    dataset = Occ3DNuScenesDataset(
        ann_file=str(path),
        data_root=str(shared / 'data/nuscenes_frame'),
        cams=case.config['cams'],
        key_ego='CAM_FRONT_LEFT',
        pipeline=[LoadMultiViewImages()])
    results = dataset[0]
    draws = [(tuple(aug['resize_dims']), tuple(aug['crop']), aug['flip'],
              aug['rotate']) for aug in case.config['aug']]
    results['img'] = [
        augment_image(image, *draw)
        for image, draw in zip(results['img'], draws)
    ]
    results['img_aug_mat'] = np.stack([
        image_augmentation_matrix(results['ori_shape'], *draw)
        for draw in draws
    ])
    results['img_shape'] = tuple(case.config['input_size'])
    return results


def test_golden_images_as_the_published_network_sees_them(
        golden, case, published):
    packed = PackOccInputs()(published)
    batch = dict(
        inputs=dict(img=[packed['inputs']['img']]),
        data_samples=[packed['data_samples']])
    images = OccDataPreprocessor(channel_order='bgr')(batch)['inputs']['imgs']
    golden[0].compare(case, 'imgs_current', images[0])


def test_golden_matrices(golden, case, published):
    matrices = published['img_aug_mat']
    rotation = np.tile(np.eye(3), (6, 1, 1))
    rotation[:, :2, :2] = matrices[:, :2, :2]
    translation = np.zeros((6, 3))
    translation[:, :2] = matrices[:, :2, 3]
    # the case repeats them for three frames
    golden[0].compare(case, 'post_rot', np.tile(rotation, (3, 1, 1)))
    golden[0].compare(case, 'post_tran', np.tile(translation, (3, 1)))
    golden[0].compare(case, 'intrin', np.tile(published['cam2img'], (3, 1, 1)))
    sensor2ego, ego2global = (
        case.arrays[f'out/{name}/whole'][:6].astype(np.float64)
        for name in ('sensor2ego', 'ego2global'))
    expected = np.linalg.inv(ego2global[0]) @ ego2global @ sensor2ego
    np.testing.assert_allclose(published['cam2ego'], expected, atol=2e-4)


def test_golden_depth_maps(golden, case, published):
    near, far, _ = case.config['depth']
    published = LoadLidarPoints(ego_vehicle=(0, 0, 0, 0))(published)
    maps = PointsToDepthMaps((near, far), pixel_centre=0.)(published)
    golden[0].compare(case, 'gt_depth', maps['gt_depth'])
    counts = (maps['gt_depth'] > 0).sum((1, 2))
    golden[0].compare(case, 'gt_depth_count', counts.astype(np.float32))


def test_golden_test_time_augmentation(case):
    rows = case.arrays['out/test_aug/whole']
    for input_size, row in zip(case.config['test_sizes'], rows):
        results = dict(
            img=[Image.new('RGB', (1600, 900))], ori_shape=(900, 1600))
        matrix = AugmentMultiViewImages(input_size)(results)['img_aug_mat'][0]
        factor, _, _, left, top, right, bottom, _ = row
        expected = np.diag([factor, factor, 1, 1])
        expected[:2, 3] = -left, -top
        np.testing.assert_allclose(matrix, expected, rtol=1e-6)
        assert results['img_shape'] == (bottom - top, right - left)
