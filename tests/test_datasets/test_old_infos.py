"""Old pickles, made here from the tables with the fields of the codebases
that wrote them, read as what our converter writes."""

import pickle

import numpy as np
import pytest
import yaml
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
    calibration = nusc.get('calibrated_sensor', data['calibrated_sensor_token'])
    ego = nusc.get('ego_pose', data['ego_pose_token'])
    return (
        data,
        calibration,
        {
            f'{prefix}2ego_translation': calibration['translation'],
            f'{prefix}2ego_rotation': calibration['rotation'],
            'ego2global_translation': ego['translation'],
            'ego2global_rotation': ego['rotation'],
        },
    )


def _sensor(nusc, token, kind):
    data, calibration, poses = _poses(nusc, token, 'sensor')
    return (
        data,
        calibration,
        dict(
            data_path=f'./data/nuscenes/{data["filename"]}',
            type=kind,
            sample_data_token=token,
            timestamp=data['timestamp'],
            **poses,
        ),
    )


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
            _, calibration, cams[name] = _sensor(nusc, sample['data'][name], name)
            cams[name]['cam_intrinsic'] = np.array(calibration['camera_intrinsic'])
    sweeps = []
    while lidar['prev']:
        token = lidar['prev']
        lidar, _, sweep = _sensor(nusc, token, 'lidar')
        sweeps.append(sweep)
    annotations = [nusc.get('sample_annotation', t) for t in sample['anns']]
    names = [
        category_to_detection_name(a['category_name']) or a['category_name'] for a in annotations
    ]
    rotation = np.linalg.inv(
        Quaternion(poses['ego2global_rotation']).rotation_matrix
        @ Quaternion(poses['lidar2ego_rotation']).rotation_matrix
    )
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
        gt_velocity=np.array(
            [(rotation @ nusc.box_velocity(t))[:2] for t in sample['anns']]
        ).reshape(-1, 2),
        num_lidar_pts=np.array([a['num_lidar_pts'] for a in annotations]),
        num_radar_pts=np.array([a['num_radar_pts'] for a in annotations]),
        valid_flag=np.array(
            [a['num_lidar_pts'] + a['num_radar_pts'] > 0 for a in annotations], bool
        ),
        **poses,
    )
    if style == 'temporal':
        info.update(
            prev=sample['prev'],
            next=sample['next'],
            frame_idx=0,
            can_bus=np.arange(18.0),
            occ_gt_path=f'{folder}/labels.npz',
        )
    else:
        info.update(ann_infos=([], []), occ_path=f'./data/nuscenes/{folder}')
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
    path.write_bytes(pickle.dumps(dict(infos=infos, metadata=dict(version='v1.0-x'))))
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
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-6, err_msg=path)


def test_an_old_file_says_what_our_converter_says(old_file, world):
    kind, path = old_file
    old = load_infos(path)
    new = load_infos(world / 'radocc_infos_train.pkl')
    assert old['metainfo']['categories'] == new['metainfo']['categories']
    # each scene in the order of time, the scenes by their first keyframe
    first = {}
    for info in new['data_list']:
        first.setdefault(info['scene_token'], info['timestamp'])
    new['data_list'].sort(key=lambda info: (first[info['scene_token']], info['timestamp']))
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
        yaws = [[box['bbox_3d'].pop() for box in infos['instances']] for infos in (got, want)]
        turns = np.subtract(*yaws) / (2 * np.pi)
        np.testing.assert_allclose(turns, np.round(turns), atol=1e-4)
        _compare(got, want)


def test_the_dataset_reads_old_files(old_file, world):
    _, path = old_file
    old, new = (
        Occ3DNuScenesDataset(
            ann_file=str(file), data_root=str(world), key_ego='CAM_FRONT_LEFT', adjacent=(1,)
        )
        for file in (path, 'radocc_infos_train.pkl')
    )
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


@pytest.mark.parametrize(
    'damage, named',
    (
        (lambda info: info.pop('cams'), 'cams'),
        (lambda info: info.pop('scene_token'), 'scene_token'),
        (lambda info: info.update(lidar_path='/elsewhere/x.bin'), 'elsewhere'),
    ),
)
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


def test_the_test_split_has_neither_labels_nor_scene_names(nusc, world, tmp_path):
    scene = nusc.scene[0]
    sample = nusc.get('sample', scene['first_sample_token'])
    info = _old_info(nusc, scene, sample, 'bevdetv2')
    for name in (
        'occ_path',
        'ann_infos',
        'gt_boxes',
        'gt_names',
        'gt_velocity',
        'num_lidar_pts',
        'num_radar_pts',
        'valid_flag',
    ):
        del info[name]
    path = tmp_path / 'bevdetv2_test.pkl'
    got = _load(info, path)
    assert 'occ_path' not in got and got['instances'] == []
    dataset = Occ3DNuScenesDataset(ann_file=str(path), data_root=str(world), test_mode=True)
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
    assert got['occ_path'] == (f'gts/{scene["name"]}/{sample["token"]}/labels.npz')


def _with_boxes(info, style):
    """The boxes of an info in the form that mmdet3d 0.17 or 1.0 writes."""
    boxes = info['gt_boxes'].copy()
    if style == 'temporal':
        boxes[:, 3:5] = boxes[:, [4, 3]]
        boxes[:, 6] = -boxes[:, 6] - np.pi / 2
    return dict(info, gt_boxes=boxes)


@pytest.fixture
def info(nusc):
    scene = nusc.scene[0]
    sample = nusc.get('sample', scene['first_sample_token'])
    return _old_info(nusc, scene, sample, 'bevdetv2')


@pytest.mark.parametrize('can_bus', [{}, dict(can_bus=np.arange(18.0))])
@pytest.mark.parametrize('style', KINDS)
def test_the_boxes_themselves_tell_their_form(info, tmp_path, style, can_bus):
    """Not an unrelated key like can_bus: BEVDet of July 2022 has none."""
    want = info['gt_boxes']
    assert np.isin(info['gt_names'], ('car', 'truck', 'bus')).any()
    got = _load(dict(_with_boxes(info, style), **can_bus), tmp_path / 'old.pkl')
    boxes = np.array([i['bbox_3d'] for i in got['instances']])
    np.testing.assert_allclose(boxes[:, :6], want[:, :6])
    turns = (boxes[:, 6] - want[:, 6]) / (2 * np.pi)
    np.testing.assert_allclose(turns, turns.round(), atol=1e-9)


def test_boxes_of_bevdet_s_own_file_agree_with_its_ann_infos(shared, tmp_path):
    folder = shared / 'data' / 'real' / 'keyframe_scene-0003'
    if not folder.is_dir():
        pytest.skip(f'{folder} is absent')
    old = yaml.safe_load((folder / 'sample0000.yaml').read_text())
    for name in ('gt_boxes', 'gt_velocity', 'num_lidar_pts', 'valid_flag'):
        old[name] = np.array(old[name])
    own = np.array(old['ann_infos'][0])
    got = _load(old, tmp_path / 'bevdet.pkl')
    boxes = np.array([i['bbox_3d'] for i in got['instances']])
    lidar2ego = got['lidar_points']['lidar2ego']
    centres = boxes[:, :3] @ lidar2ego[:3, :3].T + lidar2ego[:3, 3]
    order = np.linalg.norm(centres[:, None] - own[None, :, :3], axis=2).argmin(1)
    np.testing.assert_allclose(boxes[:, 3:6], own[order, 3:6], atol=1e-6)
    # yaws about the axes of two frames, 1 degree apart in pitch and roll
    ahead = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6])], 1)
    ahead = ahead @ lidar2ego[:2, :2].T
    turn = np.arctan2(ahead[:, 1], ahead[:, 0]) - own[order, 6]
    assert np.abs((turn + np.pi) % (2 * np.pi) - np.pi).max() < 0.05
    # without them the sizes of the vehicles tell the same
    bare = _load(dict(old, ann_infos=None), tmp_path / 'bare.pkl')
    assert bare['instances'] == got['instances']


def test_paths_written_on_windows_are_read(info, tmp_path):
    want = _load(info, tmp_path / 'unix.pkl')
    info['lidar_path'] = 'D:\\data\\nuscenes\\' + want['lidar_points']['lidar_path'].replace(
        '/', '\\'
    )
    for camera in info['cams'].values():
        camera['data_path'] = camera['data_path'].replace('/', '\\')
    info['pts_semantic_mask_path'] = '.\\data\\lidarseg\\v1.0\\x_lidarseg.bin'
    got = _load(info, tmp_path / 'windows.pkl')
    assert got['lidarseg_path'] == 'lidarseg/v1.0/x_lidarseg.bin'
    assert got['lidar_points']['lidar_path'] == want['lidar_points']['lidar_path']
    for name, image in got['images'].items():
        assert image['img_path'] == want['images'][name]['img_path']


def _mmdet3d_0(nusc, world, path):
    """A file of mmdet3d 0.x: no scenes, no labels."""
    infos = []
    for sample in nusc.sample[:3]:
        scene = nusc.get('scene', sample['scene_token'])
        infos.append(_old_info(nusc, scene, sample, 'bevdetv2'))
        for name in ('scene_token', 'ann_infos', 'occ_path'):
            del infos[-1][name]
    path.write_bytes(pickle.dumps(dict(infos=infos, metadata=dict(version='v1.0-synthetic'))))


def _mmdet3d_1(nusc, world, path):
    """The same in the layout of v2, with bare file names."""
    wanted = {sample['token'] for sample in nusc.sample[:3]}
    infos = load_infos(world / 'radocc_infos_train.pkl')['data_list']
    infos = [info for info in infos if info['token'] in wanted]
    for info in infos:
        for name in ('scene_token', 'scene_name', 'prev', 'next', 'occ_path', 'can_bus'):
            del info[name]
        info['pts_semantic_mask_path'] = info.pop('lidarseg_path').split('/')[-1]
        for record in (*info['images'].values(), info['lidar_points']):
            name = 'img_path' if 'img_path' in record else 'lidar_path'
            record[name] = record[name].split('/')[-1]
        info['lidar_sweeps'] = [
            dict(
                lidar_points=dict(
                    lidar_path=f'./data/nuscenes/{sweep["lidar_path"]}',
                    lidar2ego=sweep['lidar2ego'].tolist(),
                ),
                ego2global=sweep['ego2global'].tolist(),
                timestamp=sweep['timestamp'],
            )
            for sweep in info['lidar_sweeps']
        ]
    path.write_bytes(pickle.dumps(dict(metainfo=dict(version='v1.0-synthetic'), data_list=infos)))


@pytest.mark.parametrize('write', [_mmdet3d_0, _mmdet3d_1])
def test_files_of_mmdet3d_get_their_scenes_from_the_tables(nusc, world, tmp_path, write):
    path = tmp_path / 'nuscenes_infos_train.pkl'
    write(nusc, world, path)
    dataset = Occ3DNuScenesDataset(ann_file=str(path), data_root=str(world))
    ours = Occ3DNuScenesDataset(ann_file='radocc_infos_train.pkl', data_root=str(world))
    by_token = {ours.get_data_info(i)['token']: i for i in range(len(ours))}
    assert len(dataset) == 3
    for i in range(3):
        got = dataset.get_data_info(i)
        want = ours.get_data_info(by_token[got['token']])
        for name in (
            'scene_name',
            'scene_token',
            'prev',
            'next',
            'img_path',
            'lidar_path',
            'occ_path',
        ):
            assert got[name] == want[name], name
        np.testing.assert_allclose(got['cam2ego'], want['cam2ego'], atol=1e-6)
        for sweeps in zip(got['lidar_sweeps'], want['lidar_sweeps']):
            assert sweeps[0]['lidar_path'] == sweeps[1]['lidar_path']
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    with pytest.raises(ValueError, match='tables .*sample.json'):
        len(Occ3DNuScenesDataset(ann_file=str(path), data_root=str(elsewhere)))
