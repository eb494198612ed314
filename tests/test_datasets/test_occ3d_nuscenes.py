import numpy as np
import pytest

from radocc_plugin import occ3d
from radocc_plugin.datasets import Occ3DNuScenesDataset


def test_cam2ego_contains_the_ego_motion_between_timestamps(sample, tiny_infos):
    info = tiny_infos[0]
    image = info['images']['CAM_FRONT']
    in_camera = np.array([1.0, 2.0, 10.0, 1.0])
    in_world = image['ego2global'] @ image['cam2ego'] @ in_camera
    index = sample['cam_names'].index('CAM_FRONT')
    by_key_ego = sample['ego2global'] @ sample['cam2ego'][index] @ in_camera
    np.testing.assert_allclose(by_key_ego, in_world, atol=1e-9)
    assert not np.allclose(sample['cam2ego'][index], image['cam2ego'])


def test_infos_without_camera_ego_poses_give_the_same_cameras(make_dataset, tiny_infos, sample):
    for image in tiny_infos[0]['images'].values():
        del image['ego2global']  # as mmdet3d writes them
    without = make_dataset(tiny_infos).get_data_info(0)
    np.testing.assert_allclose(without['cam2ego'], sample['cam2ego'], atol=1e-9)


@pytest.mark.parametrize('key_ego', ('CAM_FRONT', 'CAM_FRONT_LEFT'))
def test_a_camera_as_key_ego_moves_all_geometry_rigidly(make_dataset, tiny_infos, sample, key_ego):
    image = tiny_infos[0]['images'][key_ego]
    moved = make_dataset(tiny_infos, key_ego=key_ego).get_data_info(0)
    index = moved['cam_names'].index(key_ego)
    np.testing.assert_allclose(moved['cam2ego'][index], image['cam2ego'], atol=1e-9)
    np.testing.assert_allclose(moved['ego2global'], image['ego2global'], atol=1e-9)
    for name in ('cam2ego', 'lidar2ego'):
        np.testing.assert_allclose(
            moved['ego2global'] @ moved[name], sample['ego2global'] @ sample[name], atol=1e-9
        )
    np.testing.assert_allclose(
        moved['ego2global'] @ moved['lidar_sweeps'][0]['lidar2ego'],
        sample['ego2global'] @ sample['lidar_sweeps'][0]['lidar2ego'],
        atol=1e-9,
    )


def test_matrices_are_float64_and_paths_exist(sample):
    shapes = dict(
        cam2img=(6, 3, 3), cam2ego=(6, 4, 4), lidar2ego=(4, 4), ego2global=(4, 4), bda_mat=(4, 4)
    )
    for name, shape in shapes.items():
        assert sample[name].shape == shape
        assert sample[name].dtype == np.float64
    for path in (*sample['img_path'], sample['lidar_path'], sample['occ_path']):
        assert open(path, 'rb').read(1)


def test_cameras_come_in_the_order_asked_for(make_dataset, tiny_infos):
    cams = ('CAM_BACK', 'CAM_FRONT')
    info = make_dataset(tiny_infos, cams=cams).get_data_info(0)
    assert [path.split('/')[-2] for path in info['img_path']] == list(cams)
    assert info['cam2img'].shape == (2, 3, 3)


def test_indices_take_the_first_samples(make_dataset, tiny_infos):
    dataset = make_dataset(tiny_infos, indices=1)
    assert len(dataset) == 1
    assert dataset.metainfo['classes'] == occ3d.CLASSES


def test_a_missing_camera_is_named(make_dataset, tiny_infos):
    del tiny_infos[0]['images']['CAM_BACK']
    dataset = make_dataset(tiny_infos)
    with pytest.raises(ValueError, match='CAM_BACK,? which sample token0'):
        dataset.get_data_info(0)


def test_a_missing_field_is_named(make_dataset, tiny_infos):
    del tiny_infos[1]['scene_name']
    dataset = make_dataset(tiny_infos)
    with pytest.raises(ValueError, match="token1.*infos.pkl.*'scene_name'"):
        dataset.get_data_info(1)


def test_an_unknown_key_ego_is_refused():
    with pytest.raises(ValueError, match='key_ego.*RADAR'):
        Occ3DNuScenesDataset(key_ego='RADAR', lazy_init=True)


def test_a_missing_info_file_is_named(tmp_path):
    with pytest.raises(ValueError, match='absent.pkl.*create_data'):
        Occ3DNuScenesDataset(ann_file=str(tmp_path / 'absent.pkl'))


def test_few_labels_are_those_of_evenly_spaced_keyframes(make_dataset, tiny_infos):
    dataset = make_dataset(tiny_infos, label_every=2)
    labelled = [dataset.get_data_info(i)['labelled'] for i in range(len(dataset))]
    assert labelled == [i % 2 == 0 for i in range(len(dataset))]


@pytest.mark.parametrize('options', [dict(label_every=0), dict(label_every=2, test_mode=True)])
def test_few_labels_are_for_training(options):
    with pytest.raises(ValueError, match='label_every takes at least 1'):
        Occ3DNuScenesDataset(**options)


@pytest.mark.parametrize(
    'options',
    [
        dict(sweeps_per_keyframe=-1),
        dict(sweeps_per_keyframe=1, test_mode=True),
        dict(sweeps_per_keyframe=1, sequences_split=1),
    ],
)
def test_sweeps_are_for_training_without_streams(make_dataset, tiny_infos, options):
    with pytest.raises(ValueError, match='sweeps_per_keyframe takes at least'):
        make_dataset(tiny_infos, **options)


def test_a_camera_named_twice_is_refused(make_dataset, tiny_infos):
    """It would give one image and two names."""
    with pytest.raises(ValueError, match='cams takes every camera once'):
        make_dataset(tiny_infos, cams=('CAM_FRONT', 'CAM_BACK', 'CAM_FRONT'))
