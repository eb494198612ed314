"""Old pickles, made here from the tables with the fields of the codebases
that wrote them, read as what our converter writes."""
import pickle

import numpy as np
import pytest
from nuscenes import NuScenes
from nuscenes.eval.detection.utils import category_to_detection_name
from pyquaternion import Quaternion

from radocc_plugin.datasets import Occ3DNuScenesDataset
from radocc_plugin.datasets.info_file import load_infos

KINDS = ('bevdetv2', 'temporal')


@pytest.fixture(scope='module')
def nusc(world):
    return NuScenes('v1.0-synthetic', str(world), verbose=False)


def _poses(nusc, token, prefix):
    data = nusc.get('sample_data', token)
    calibration = nusc.get('calibrated_sensor',
                           data['calibrated_sensor_token'])
    ego = nusc.get('ego_pose', data['ego_pose_token'])
    return data, calibration, {
        f'{prefix}2ego_translation': calibration['translation'],
        f'{prefix}2ego_rotation': calibration['rotation'],
        'ego2global_translation': ego['translation'],
        'ego2global_rotation': ego['rotation'],
    }


def _sensor(nusc, token, kind):
    data, calibration, poses = _poses(nusc, token, 'sensor')
    return data, calibration, dict(
        data_path=f'./data/nuscenes/{data["filename"]}',
        type=kind,
        sample_data_token=token,
        timestamp=data['timestamp'],
        **poses)


def _boxes(nusc, sample, style):
    _, boxes, _ = nusc.get_sample_data(sample['data']['LIDAR_TOP'])
    rows = []
    for box in boxes:
        width, length, height = box.wlh
        yaw = box.orientation.yaw_pitch_roll[0]
        if style == 'temporal':
            rows.append([*box.center, width, length, height, -yaw - np.pi / 2])
        else:
            rows.append([*box.center, length, width, height, yaw])
    return np.array(rows).reshape(-1, 7)


def _old_info(nusc, scene, sample, style):
    lidar_token = sample['data']['LIDAR_TOP']
    lidar, _, poses = _poses(nusc, lidar_token, 'lidar')
    cams = {}
    for name in sample['data']:
        if name.startswith('CAM'):
            _, calibration, cams[name] = _sensor(nusc, sample['data'][name],
                                                 name)
            cams[name]['cam_intrinsic'] = np.array(
                calibration['camera_intrinsic'])
    sweeps = []
    while lidar['prev']:
        token = lidar['prev']
        lidar, _, sweep = _sensor(nusc, token, 'lidar')
        sweeps.append(sweep)
    annotations = [nusc.get('sample_annotation', t) for t in sample['anns']]
    names = [
        category_to_detection_name(a['category_name']) or a['category_name']
        for a in annotations
    ]
    rotation = np.linalg.inv(
        Quaternion(poses['ego2global_rotation']).rotation_matrix
        @ Quaternion(poses['lidar2ego_rotation']).rotation_matrix)
    filename = nusc.get('sample_data', lidar_token)['filename']
    folder = f'gts/{scene["name"]}/{sample["token"]}'
    info = dict(
        lidar_path=f'./data/nuscenes/{filename}',
        token=sample['token'],
        sweeps=sweeps,
        cams=cams,
        timestamp=sample['timestamp'],
        scene_token=scene['token'],
        gt_boxes=_boxes(nusc, sample, style),
        gt_names=np.array(names),
        gt_velocity=np.array([(rotation @ nusc.box_velocity(t))[:2]
                              for t in sample['anns']]).reshape(-1, 2),
        num_lidar_pts=np.array([a['num_lidar_pts'] for a in annotations]),
        num_radar_pts=np.array([a['num_radar_pts'] for a in annotations]),
        valid_flag=np.array(
            [a['num_lidar_pts'] + a['num_radar_pts'] > 0
             for a in annotations], bool),
        **poses)
    if style == 'temporal':
        info.update(
            prev=sample['prev'],
            next=sample['next'],
            frame_idx=0,
            can_bus=np.arange(18.),
            occ_gt_path=f'{folder}/labels.npz')
    else:
        info.update(
            ann_infos=([], []), occ_path=f'./data/nuscenes/{folder}')
    return info


@pytest.fixture(scope='module', params=KINDS)
def old_file(request, nusc, world, tmp_path_factory):
    infos = []
    for scene in nusc.scene[:2]:
        token = scene['first_sample_token']
        while token:
            sample = nusc.get('sample', token)
            infos.append(_old_info(nusc, scene, sample, request.param))
            token = sample['next']
    # the old code sorts when it reads
    infos = infos[::-1]
    path = tmp_path_factory.mktemp(request.param) / 'old_infos.pkl'
    path.write_bytes(
        pickle.dumps(dict(infos=infos, metadata=dict(version='v1.0-x'))))
    return request.param, path


def _compare(got, want, path=''):
    if isinstance(want, dict):
        for name in want:
            _compare(got[name], want[name], f'{path}.{name}')
    elif isinstance(want, (list, tuple)) and not np.isscalar(want[:1]):
        assert len(got) == len(want), path
        for index, pair in enumerate(zip(got, want)):
            _compare(*pair, f'{path}[{index}]')
    elif isinstance(want, (str, bool)):
        assert got == want, path
    else:
        np.testing.assert_allclose(
            got, want, rtol=1e-9, atol=1e-6, err_msg=path)


def test_an_old_file_says_what_our_converter_says(old_file, world):
    kind, path = old_file
    old = load_infos(path)
    new = load_infos(world / 'radocc_infos_train.pkl')
    assert old['metainfo']['categories'] == new['metainfo']['categories']
    # each scene in the order of time, the scenes by their first keyframe
    first = {}
    for info in new['data_list']:
        first.setdefault(info['scene_token'], info['timestamp'])
    new['data_list'].sort(
        key=lambda info: (first[info['scene_token']], info['timestamp']))
    assert len(old['data_list']) == len(new['data_list']) == 8
    for got, want in zip(old['data_list'], new['data_list']):
        # old files know nothing of these
        del want['lidarseg_path'], want['sample_idx']
        for image in want['images'].values():
            del image['height'], image['width']
        motion = want.pop('can_bus')
        motion[7:16] = np.arange(7, 16) if kind == 'temporal' else np.nan
        np.testing.assert_allclose(got['can_bus'], motion)
        # the devkit's yaw of a tilted box is another one in second order
        yaws = [[box['bbox_3d'].pop() for box in infos['instances']]
                for infos in (got, want)]
        turns = np.subtract(*yaws) / (2 * np.pi)
        np.testing.assert_allclose(turns, np.round(turns), atol=1e-4)
        _compare(got, want)


def test_the_dataset_reads_old_files(old_file, world):
    _, path = old_file
    old, new = (
        Occ3DNuScenesDataset(
            ann_file=str(file),
            data_root=str(world),
            key_ego='CAM_FRONT_LEFT',
            adjacent=(1, )) for file in (path, 'radocc_infos_train.pkl'))
    by_token = {new.get_data_info(i)['token']: i for i in range(len(new))}
    for i in range(len(old)):
        got = old.get_data_info(i)
        want = new.get_data_info(by_token[got['token']])
        for name in ('cam2ego', 'lidar2ego', 'ego2global', 'cam2img'):
            np.testing.assert_allclose(got[name], want[name], atol=1e-6)
        for name in ('img_path', 'lidar_path', 'occ_path', 'prev', 'next'):
            assert got[name] == want[name]
        got, want = got['adjacent'][0], want['adjacent'][0]
        assert got['exists'] == want['exists']
        np.testing.assert_allclose(got['cam2ego'], want['cam2ego'], atol=1e-6)


@pytest.mark.parametrize('damage, named', (
    (lambda info: info.pop('cams'), 'cams'),
    (lambda info: info.pop('scene_token'), 'scene_token'),
    (lambda info: info.update(lidar_path='/elsewhere/x.bin'), 'elsewhere'),
))
def test_a_bad_entry_names_file_and_field(nusc, tmp_path, damage, named):
    scene = nusc.scene[0]
    sample = nusc.get('sample', scene['first_sample_token'])
    info = _old_info(nusc, scene, sample, 'bevdetv2')
    damage(info)
    path = tmp_path / 'bevdetv2.pkl'
    path.write_bytes(pickle.dumps(dict(infos=[info], metadata={})))
    with pytest.raises(ValueError, match=f'bevdetv2.pkl.*{named}'):
        load_infos(path)


def _load(info, path):
    path.write_bytes(pickle.dumps(dict(infos=[info], metadata={})))
    return load_infos(path)['data_list'][0]


def test_the_test_split_has_neither_labels_nor_scene_names(
        nusc, world, tmp_path):
    scene = nusc.scene[0]
    sample = nusc.get('sample', scene['first_sample_token'])
    info = _old_info(nusc, scene, sample, 'bevdetv2')
    for name in ('occ_path', 'ann_infos', 'gt_boxes', 'gt_names',
                 'gt_velocity', 'num_lidar_pts', 'num_radar_pts',
                 'valid_flag'):
        del info[name]
    path = tmp_path / 'bevdetv2_test.pkl'
    got = _load(info, path)
    assert 'occ_path' not in got and got['instances'] == []
    dataset = Occ3DNuScenesDataset(
        ann_file=str(path), data_root=str(world), test_mode=True)
    assert dataset.get_data_info(0)['scene_name'] == scene['token']


def test_folders_above_the_data_root_may_have_any_name(nusc, tmp_path):
    scene = nusc.scene[0]
    sample = nusc.get('sample', scene['first_sample_token'])
    info = _old_info(nusc, scene, sample, 'bevdetv2')
    name = info['lidar_path'].replace('./data/nuscenes/', '')
    info['lidar_path'] = f'/mnt/samples/sweeps/nuscenes/{name}'
    got = _load(info, tmp_path / 'bevdetv2.pkl')
    assert got['lidar_points']['lidar_path'] == name


def test_scene_names_of_fbocc_give_the_label_path(nusc, tmp_path):
    scene = nusc.scene[0]
    sample = nusc.get('sample', scene['first_sample_token'])
    info = _old_info(nusc, scene, sample, 'bevdetv2')
    del info['occ_path']
    info.update(scene_name=scene['name'], prev='')
    path = tmp_path / 'fbocc.pkl'
    path.write_bytes(pickle.dumps(dict(infos=[info], metadata={})))
    got = load_infos(path)['data_list'][0]
    assert got['scene_name'] == scene['name']
    assert got['occ_path'] == (f'gts/{scene["name"]}/{sample["token"]}'
                               '/labels.npz')
