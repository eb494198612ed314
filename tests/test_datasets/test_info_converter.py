"""The converter on the synthetic world, whose tables are nuScenes tables."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate

from radocc_plugin import occ3d
from radocc_plugin.datasets import Occ3DNuScenesDataset, info_converter, nuscenes_infos
from radocc_plugin.datasets.file_check import check_files
from radocc_plugin.datasets.info_converter import check_nuscenes, convert_nuscenes
from radocc_plugin.datasets.info_file import load_infos
from radocc_plugin.datasets.old_infos import DETECTION_CLASSES
from radocc_plugin.datasets.sequences import evenly_spaced
from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.label_space import UNLABELLED
from radocc_plugin.segments.camera_images import image_paths
from radocc_plugin.structures import OccDataPreprocessor

VERSION = 'v1.0-synthetic'
PIPELINE = [
    dict(type='radocc_plugin.LoadMultiViewImages'),
    dict(type='radocc_plugin.AugmentMultiViewImages', input_size=(32, 64)),
    dict(type='radocc_plugin.LoadLidarPoints', num_sweeps=10),
    dict(type='radocc_plugin.LoadOcc3D'),
    dict(type='radocc_plugin.AugmentBEV', flip_x_prob=1.0, flip_y_prob=1.0),
    dict(type='radocc_plugin.PointsToDepthMaps'),
    dict(type='radocc_plugin.PackOccInputs'),
]


@pytest.fixture
def linked(world, tmp_path):
    """The world's data without its info files, in a folder of its own."""
    for source in world.iterdir():
        if source.is_dir():
            (tmp_path / source.name).symlink_to(source)
    return tmp_path


def _share_of_points_in_occupied_voxels(points, occ):
    grid = VoxelGrid(occ3d.POINT_CLOUD_RANGE, occ3d.GRID_SHAPE)
    cells, inside = grid.index(points[:, :3].double())
    hit = occ.semantics.flatten()[grid.ravel(cells[inside])]
    return (hit != occ3d.FREE).float().mean()


def _share_of_points_near_boxes(info, name, margin):
    """Share of the LiDAR points of a class that lie in boxes of the class."""
    points = np.fromfile(info['lidar_path'], np.float32).reshape(-1, 5)
    lidarseg = np.fromfile(info['lidarseg_path'], np.uint8)
    classes = np.array(occ3d.LIDARSEG_TO_OCC3D)[lidarseg]
    points = points[classes == occ3d.CLASSES.index(name), :3]
    covered = np.zeros(len(points), bool)
    for box in info['instances']:
        if box['bbox_label_3d'] != DETECTION_CLASSES.index(name):
            continue
        x, y, z, length, width, height, yaw = box['bbox_3d']
        offset = points - (x, y, z)
        along = offset[:, 0] * np.cos(yaw) + offset[:, 1] * np.sin(yaw)
        across = offset[:, 1] * np.cos(yaw) - offset[:, 0] * np.sin(yaw)
        covered |= (
            (np.abs(along) < length / 2 + margin)
            & (np.abs(across) < width / 2 + margin)
            & (np.abs(offset[:, 2]) < height / 2 + margin)
        )
    return covered.mean()


def test_infos_feed_dataset_and_preprocessor(world):
    dataset = Occ3DNuScenesDataset(
        ann_file='radocc_infos_train.pkl', data_root=str(world), pipeline=PIPELINE
    )
    first, second = (dataset.get_data_info(i) for i in range(2))
    assert first['prev'] == '' and first['next'] == second['token']
    assert second['prev'] == first['token']
    assert not first['lidar_sweeps']
    # the sweep in between and the first keyframe, newest first
    lags = [sweep['lag'] for sweep in second['lidar_sweeps']]
    np.testing.assert_allclose(lags, (0.25, 0.5), atol=1e-3)
    # cars are made of voxels, which stand out of their boxes
    assert _share_of_points_near_boxes(second, 'car', occ3d.VOXEL_SIZE) > 0.9

    batch = pseudo_collate([dataset[0], dataset[1]])
    out = OccDataPreprocessor()(batch)
    assert out['inputs']['imgs'].shape == (2, 6, 3, 32, 64)
    for points, sample in zip(out['inputs']['points'], out['data_samples']):
        assert sample.scene_name == 'synthetic-train-0001'
        key = points[points[:, 4] == 0]
        assert _share_of_points_in_occupied_voxels(key, sample.gt_occ) > 0.95
    assert points[:, 4].unique().shape == torch.Size([3])


def test_missing_files_stop_the_conversion_and_it_goes_on_later(world, linked, monkeypatch):
    val = load_infos(world / 'radocc_infos_val.pkl')['data_list']
    lost = val[0]['images']['CAM_BACK']['img_path']
    (linked / 'samples').unlink()
    shutil.copytree(world / 'samples', linked / 'samples')
    (linked / lost).unlink()
    with pytest.raises(ValueError, match=f'synthetic-val-0001: 1, e.g. {lost}'):
        convert_nuscenes(str(linked), VERSION, progress=False)
    assert not list(linked.glob('*.pkl'))
    shutil.copy(world / lost, linked / lost)

    def no_second_time(*args, **kwargs):
        raise AssertionError('scenes were finished')

    monkeypatch.setattr(info_converter, 'NuScenes', no_second_time)
    paths = convert_nuscenes(str(linked), VERSION, progress=False)
    for path in paths:
        name = path.split('/')[-1]
        assert (linked / name).read_bytes() == (world / name).read_bytes()
    assert not list(linked.glob('.radocc_infos*'))


def test_an_interrupted_conversion_keeps_its_scenes(world, linked, monkeypatch):
    done = []

    def interrupted(nusc, scene, **kwargs):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(scene['name'])
        return original(nusc, scene, **kwargs)

    original = info_converter.scene_infos
    monkeypatch.setattr(info_converter, 'scene_infos', interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert_nuscenes(str(linked), VERSION, progress=False)
    assert done == ['synthetic-train-0001', 'synthetic-train-0002']
    assert not list(linked.glob('*.pkl'))
    later = []

    def rest(nusc, scene, **kwargs):
        later.append(scene['name'])
        return original(nusc, scene, **kwargs)

    monkeypatch.setattr(info_converter, 'scene_infos', rest)
    convert_nuscenes(str(linked), VERSION, progress=False)
    assert later == ['synthetic-val-0001']
    for name in ('radocc_infos_train.pkl', 'radocc_infos_val.pkl'):
        assert (linked / name).read_bytes() == (world / name).read_bytes()


def test_scenes_of_other_settings_are_converted_anew(world, linked, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(info_converter, 'check_files', lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            convert_nuscenes(str(linked), VERSION, progress=False)
    paths = convert_nuscenes(str(linked), VERSION, num_sweeps=1, progress=False)
    infos = load_infos(paths[0])['data_list']
    assert max(len(info['lidar_sweeps']) for info in infos) == 1


def test_a_test_split_of_ones_own_is_labelled(world, linked):
    (linked / VERSION).unlink()
    shutil.copytree(world / VERSION, linked / VERSION)
    names = dict(
        train=['synthetic-train-0001'], val=['synthetic-train-0002'], test=['synthetic-val-0001']
    )
    (linked / VERSION / 'splits.json').write_text(json.dumps(names))
    paths = convert_nuscenes(str(linked), VERSION, progress=False)
    assert [path.split('_')[-1] for path in paths] == ['train.pkl', 'val.pkl', 'test.pkl']
    expected = load_infos(world / 'radocc_infos_val.pkl')['data_list']
    got = load_infos(paths[2])['data_list']
    assert [info['occ_path'] for info in got] == [info['occ_path'] for info in expected]


@pytest.fixture
def with_sweeps(linked):
    """Train infos with the frames between keyframes, and their folder."""
    path, _ = convert_nuscenes(str(linked), VERSION, sweeps_per_keyframe=2, progress=False)
    return path, linked


def test_frames_between_keyframes_are_samples_without_labels(with_sweeps):
    path, root = with_sweeps
    options = dict(ann_file=path, data_root=str(root), pipeline=PIPELINE)
    keyframes = Occ3DNuScenesDataset(**options)
    dataset = Occ3DNuScenesDataset(
        sweeps_per_keyframe=1, adjacent=(1, 2), label_every=4, can_bus='measured', **options
    )
    # two scenes of four keyframes, the last ones have nothing behind
    assert len(keyframes) == 8 and len(dataset) == 8 + 6
    assert dataset.labelled().tolist() == [i in (0, 4) for i in range(14)]
    for i in range(8):
        assert dataset.get_data_info(i)['token'] == keyframes.get_data_info(i)['token']
    infos = load_infos(path)['data_list']
    followed = [info for info in infos if info['sweeps']]
    for i, before in enumerate(followed):
        (stored,) = before['sweeps']
        sample = dataset.get_data_info(8 + i)
        assert not sample['labelled'] and sample['token'] == stored['token']
        assert sample['prev'] == before['token']
        assert sample['scene_name'] == before['scene_name']
        assert sample['timestamp'] - before['timestamp'] == pytest.approx(0.25)
        assert 'occ_path' not in sample and '/sweeps/' in sample['lidar_path']
        # the newest past sweep is the keyframe's own
        assert sample['lidar_sweeps'][0]['lag'] == pytest.approx(0.25)
        global2ego = np.linalg.inv(stored['ego2global'])
        for camera, image in stored['images'].items():
            assert f'sweeps/{camera}/' in image['img_path']
            assert abs(image['timestamp'] - stored['timestamp']) < 0.05
            n = sample['cam_names'].index(camera)
            cam2ego = global2ego @ image['ego2global'] @ image['cam2ego']
            np.testing.assert_allclose(sample['cam2ego'][n], cam2ego)
            np.testing.assert_allclose(
                cam2ego @ image['lidar2cam'], stored['lidar_points']['lidar2ego'], atol=1e-6
            )
        assert [frame['token'] for frame in sample['adjacent']] == [
            before['token'],
            before['prev'] or stored['token'],
        ]
        # the ego moves on between keyframe, sweep and next keyframe
        ahead = global2ego @ before['ego2global'][:, 3]
        assert -10 * 0.25 - 0.1 < ahead[0] < -3 * 0.25 + 0.1
        assert np.isfinite(sample['can_bus']).all()
    packed = dataset[8]
    truth = packed['data_samples'].gt_occ
    assert (truth.semantics == UNLABELLED).all()
    assert not truth.mask_camera.any() and not truth.mask_lidar.any()
    assert (packed['inputs']['points'][:, 4] == 0).sum() > 10_000
    assert packed['data_samples'].gt_depth.gt(0).sum() > 100


def test_segments_and_file_checks_take_the_frames_between(with_sweeps):
    path, root = with_sweeps
    images = image_paths(path)
    assert len(images) == 6 * (8 + 6)
    lost = next(image for image in images if image.startswith('sweeps'))
    with pytest.raises(ValueError, match=f'1, e.g. {lost}'):
        check_files(load_infos(path)['data_list'], _without(root, lost), progress=False)


def _without(root, path):
    """A data root that lacks one file."""
    other = root / 'other'
    other.mkdir()
    for source in root.iterdir():
        if source.is_symlink() and source.name != 'sweeps':
            (other / source.name).symlink_to(source)
    shutil.copytree(root / 'sweeps', other / 'sweeps')
    (other / path).unlink()
    return str(other)


def test_sweeps_that_are_not_there_are_an_error(world, linked, monkeypatch):
    with pytest.raises(ValueError, match='at most 0.*--sweeps-per-keyframe'):
        Occ3DNuScenesDataset(ann_file=str(world / 'radocc_infos_train.pkl'), sweeps_per_keyframe=1)
    monkeypatch.setattr(nuscenes_infos, '_SAME_TIME', -1)
    with pytest.raises(ValueError, match='v1.0-synthetic.*--image-sweeps'):
        convert_nuscenes(str(linked), VERSION, sweeps_per_keyframe=1, progress=False)


@pytest.mark.parametrize(
    'total, count, expected',
    [
        (9, 1, [4]),
        (9, 2, [2, 5]),
        (9, 4, [1, 3, 5, 7]),
        (2, 1, [0]),
        (3, 3, [0, 1, 2]),
        (1, 2, [0]),
        (0, 2, []),
        (4, 0, []),
    ],
)
def test_sweeps_are_spread_evenly(total, count, expected):
    assert evenly_spaced(range(total), count) == expected


def test_the_test_split_has_neither_labels_nor_boxes(world, linked, monkeypatch):
    tables = linked / 'v1.0-test'
    shutil.copytree(world / VERSION, tables)
    (tables / 'lidarseg.json').unlink()
    for name in ('sample_annotation', 'instance'):
        (tables / f'{name}.json').write_text('[]')
    monkeypatch.setattr(
        info_converter, 'create_splits_scenes', lambda: dict(test=['synthetic-val-0001'])
    )
    (path,) = convert_nuscenes(str(linked), 'v1.0-test', progress=False)
    assert path.endswith('radocc_infos_test.pkl')
    labelled = load_infos(world / 'radocc_infos_val.pkl')['data_list']
    for info, other in zip(load_infos(path)['data_list'], labelled):
        assert info['token'] == other['token'] and not info['instances']
        assert 'occ_path' not in info and 'lidarseg_path' not in info
    dataset = Occ3DNuScenesDataset(
        ann_file=path, data_root=str(linked), pipeline=[*PIPELINE[:2], PIPELINE[-1]]
    )
    assert dataset[0]['inputs']['img'].shape == (6, 3, 32, 64)


def test_the_empty_lidarseg_table_of_the_test_set_labels_nothing(world, linked, monkeypatch):
    tables = linked / 'v1.0-test'
    shutil.copytree(world / VERSION, tables)
    (tables / 'lidarseg.json').write_text('[]')
    (linked / 'lidarseg').unlink()
    (linked / 'lidarseg/v1.0-test').mkdir(parents=True)
    monkeypatch.setattr(
        info_converter, 'create_splits_scenes', lambda: dict(test=['synthetic-val-0001'])
    )
    (path,) = convert_nuscenes(str(linked), 'v1.0-test', progress=False)
    infos = load_infos(path)['data_list']
    assert infos and not any('lidarseg_path' in info for info in infos)


def test_infos_of_another_version_are_kept(linked, world):
    path, _ = convert_nuscenes(str(linked), VERSION, progress=False)
    content = Path(path).read_bytes()
    (linked / 'v1.0-other').symlink_to(world / VERSION)
    (linked / 'lidarseg').unlink()
    shutil.copytree(world / 'lidarseg', linked / 'lidarseg')
    (linked / 'lidarseg/v1.0-other').symlink_to(world / 'lidarseg' / VERSION)
    with pytest.raises(ValueError, match=f'infos_train.pkl.* {VERSION}.*v1.0-other.*--overwrite'):
        convert_nuscenes(str(linked), 'v1.0-other', progress=False)
    assert Path(path).read_bytes() == content
    # the same version is written again, another one when told so
    convert_nuscenes(str(linked), VERSION, progress=False)
    convert_nuscenes(str(linked), 'v1.0-other', progress=False, overwrite=True)
    assert load_infos(path)['metainfo']['version'] == 'v1.0-other'


def test_a_damaged_info_file_is_written_again(linked):
    damaged = linked / 'radocc_infos_train.pkl'
    damaged.write_bytes(b'half')
    convert_nuscenes(str(linked), VERSION, progress=False)
    assert load_infos(damaged)['metainfo']['version'] == VERSION


def test_can_bus_holds_pose_and_the_next_message(world):
    train, val = (
        load_infos(world / f'radocc_infos_{split}.pkl')['data_list'] for split in ('train', 'val')
    )
    messages = json.loads((world / 'can_bus/synthetic-train-0001_pose.json').read_text())
    for info in train:
        vector = info['can_bus']
        message = next(m for m in messages if m['utime'] > info['timestamp'] * 1e6)
        expected = [*message['accel'], *message['rotation_rate'], *message['vel']]
        np.testing.assert_allclose(vector[7:16], expected)
        np.testing.assert_allclose(vector[:3], info['ego2global'][:3, 3])
        ahead = info['ego2global'][:2, 0]
        np.testing.assert_allclose([np.cos(vector[16]), np.sin(vector[16])], ahead, atol=1e-3)
        np.testing.assert_allclose(vector[17], np.degrees(vector[16]))
        assert 0 <= vector[17] < 360
    # the expansion has nothing on this scene
    assert not any(info['can_bus'][7:16].any() for info in val)


def test_without_the_can_bus_expansion_motion_is_unknown(world, linked, capsys):
    (linked / 'can_bus').unlink()
    path, _ = convert_nuscenes(str(linked), VERSION, progress=False)
    assert 'no CAN bus expansion' in capsys.readouterr().out
    with_messages = load_infos(world / 'radocc_infos_train.pkl')['data_list']
    for info, other in zip(load_infos(path)['data_list'], with_messages):
        assert np.isnan(info['can_bus'][7:16]).all()
        np.testing.assert_array_equal(
            info['can_bus'][[*range(7), 16, 17]], other['can_bus'][[*range(7), 16, 17]]
        )


def test_a_damaged_can_bus_file_is_named(linked, world):
    (linked / 'can_bus').unlink()
    (linked / 'can_bus').mkdir()
    name = 'synthetic-train-0002_pose.json'
    (linked / 'can_bus' / name).write_text('[{"utime": 1}]')
    with pytest.raises(ValueError, match=f'{name}.*accel'):
        convert_nuscenes(str(linked), VERSION, progress=False)
    assert not list(linked.glob('*.pkl'))


def test_check_only_reads_the_written_files(world, linked):
    assert len(check_nuscenes(str(world), VERSION, progress=False)) == 2
    with pytest.raises(ValueError, match='radocc_infos_train.pkl'):
        check_nuscenes(str(linked), VERSION, progress=False)
    (linked / 'gts').unlink()
    with pytest.raises(ValueError, match='synthetic-train-0001: 4.*gts/'):
        check_nuscenes(str(linked), VERSION, out_dir=str(world), progress=False)
    with pytest.raises(ValueError, match='train.pkl.*v1.0-synthetic.*v1.0-m'):
        check_nuscenes(str(world), 'v1.0-mini', progress=False)


def test_the_command_converts_and_checks(linked, capsys):
    path = Path(__file__).resolve().parents[2] / 'tools/create_data.py'
    spec = importlib.util.spec_from_file_location('create_data', path)
    create_data = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(create_data)
    arguments = ['occ3d-nuscenes', '--data-root', str(linked), '--version', VERSION]
    with pytest.raises(ValueError, match='radocc_infos_train.pkl'):
        create_data.main([*arguments, '--check-only'])
    create_data.main(arguments)
    create_data.main([*arguments, '--check-only'])
    lines = capsys.readouterr().out.splitlines()
    for word in ('wrote', 'complete:'):
        assert [line for line in lines if line.startswith(word)] == [
            f'{word} {linked}/radocc_infos_{split}.pkl' for split in ('train', 'val')
        ]


def test_missing_and_empty_files_are_counted_by_scene(tiny_root, tiny_infos, tmp_path):
    check_files(tiny_infos, str(tiny_root))
    (tmp_path / 'nothing.jpg').touch()
    tiny_infos[0]['occ_path'] = 'gts/nowhere/labels.npz'
    tiny_infos[1]['scene_name'] = 'other'
    images = tiny_infos[1]['images']
    images['CAM_BACK']['img_path'] = 'samples/lost.jpg'
    images['CAM_FRONT']['img_path'] = str(tmp_path / 'nothing.jpg')
    with pytest.raises(ValueError) as error:
        check_files(tiny_infos, str(tiny_root))
    report = str(error.value)
    assert '3 files of 2 scenes' in report
    assert 'scene: 1, e.g. gts/nowhere/labels.npz' in report
    assert 'other: 2, e.g. ' in report
    assert 'samples/lost.jpg' in report and 'nothing.jpg (empty)' in report


def test_a_missing_version_is_named(tmp_path):
    with pytest.raises(ValueError, match='--version v1.0-mini'):
        convert_nuscenes(str(tmp_path), 'v1.0-mini')


def test_incomplete_tables_are_named(tmp_path):
    (tmp_path / 'v1.0-mini').mkdir()
    (tmp_path / 'v1.0-mini/category.json').write_text('[]')
    with pytest.raises(ValueError, match='v1.0-mini.*attribute.json'):
        convert_nuscenes(str(tmp_path), 'v1.0-mini', progress=False)


def test_scenes_that_the_tables_lack_are_named(world, linked):
    (linked / VERSION).unlink()
    shutil.copytree(world / VERSION, linked / VERSION)
    (linked / VERSION / 'splits.json').write_text(
        json.dumps(dict(train=['synthetic-val-0099'], val=[]))
    )
    with pytest.raises(ValueError, match='synthetic-val-0099'):
        convert_nuscenes(str(linked), VERSION, progress=False)


@pytest.mark.parametrize('content', (None, 'no json', '[]', '{"train": []}'))
def test_a_bad_splits_file_is_named(tmp_path, content):
    (tmp_path / VERSION).mkdir()
    if content is not None:
        (tmp_path / VERSION / 'splits.json').write_text(content)
    with pytest.raises(ValueError, match='splits.json'):
        convert_nuscenes(str(tmp_path), VERSION)


def _with_can_bus(linked, folder):
    """Moves the CAN bus files of the world's copy into a folder."""
    source = (linked / 'can_bus').resolve()
    (linked / 'can_bus').unlink()
    shutil.copytree(source, linked / folder)


def test_can_bus_files_one_folder_too_deep_are_found(world, linked):
    _with_can_bus(linked, 'can_bus/can_bus')
    path, _ = convert_nuscenes(str(linked), VERSION, progress=False)
    got, want = (load_infos(p)['data_list'] for p in (path, world / 'radocc_infos_train.pkl'))
    assert np.abs(want[0]['can_bus'][7:16]).sum() > 0
    for mine, theirs in zip(got, want):
        np.testing.assert_array_equal(mine['can_bus'], theirs['can_bus'])


def test_a_can_bus_folder_without_the_files_is_an_error(linked):
    _with_can_bus(linked, 'can_bus/deeper/still')
    with pytest.raises(ValueError, match='holds no file <scene>_pose.json'):
        convert_nuscenes(str(linked), VERSION, progress=False)


def test_can_bus_files_of_other_scenes_leave_motion_unknown_not_zero(linked, capsys):
    _with_can_bus(linked, 'can_bus')
    for path in (linked / 'can_bus').glob('*.json'):
        path.rename(path.with_name(path.name.replace('synthetic', 'other')))
    convert_nuscenes(str(linked), VERSION, progress=False)
    assert 'no CAN bus expansion of these scenes' in capsys.readouterr().out
    dataset = Occ3DNuScenesDataset(
        ann_file='radocc_infos_val.pkl', data_root=str(linked), can_bus='measured'
    )
    with pytest.raises(ValueError, match="can_bus='measured'"):
        dataset.get_data_info(0)


def _own_copy(world, linked, folder):
    (linked / folder).unlink()
    shutil.copytree(world / folder, linked / folder)


def test_a_root_without_lidar_is_converted_loaded_and_checked(world, linked):
    _own_copy(world, linked, 'samples')
    shutil.rmtree(linked / 'samples/LIDAR_TOP')
    (linked / 'sweeps').unlink()
    with pytest.raises(ValueError, match='no LiDAR: --camera-only'):
        convert_nuscenes(str(linked), VERSION, progress=False)
    convert_nuscenes(str(linked), VERSION, progress=False, camera_only=True)
    assert len(check_nuscenes(str(linked), VERSION, progress=False)) == 2

    def dataset(root, steps):
        return Occ3DNuScenesDataset(
            ann_file='radocc_infos_val.pkl', data_root=str(root), pipeline=steps, test_mode=True
        )

    cameras = [
        step for step in PIPELINE if 'Lidar' not in step['type'] and 'Points' not in step['type']
    ]
    got, want = (dataset(root, cameras)[1] for root in (linked, world))
    assert torch.equal(got['inputs']['img'], want['inputs']['img'])
    got, want = (item['data_samples'] for item in (got, want))
    assert torch.equal(got.gt_occ.semantics, want.gt_occ.semantics)
    np.testing.assert_array_equal(got.cam2ego, want.cam2ego)
    np.testing.assert_array_equal(got.lidar_origins, want.lidar_origins)
    with pytest.raises(ValueError, match='--camera-only; leave LoadLidar'):
        dataset(linked, PIPELINE)[1]


def test_scenes_with_missing_files_can_be_left_out(world, linked):
    _own_copy(world, linked, 'gts')
    first, *others = sorted((linked / 'gts').iterdir())
    next(first.rglob('labels.npz')).unlink()
    with pytest.raises(ValueError, match='--skip-incomplete'):
        convert_nuscenes(str(linked), VERSION, progress=False)
    path, _ = convert_nuscenes(str(linked), VERSION, progress=False, skip_incomplete=True)
    names = {info['scene_name'] for info in load_infos(path)['data_list']}
    assert first.name not in names and others[0].name in names
    shutil.rmtree(linked / 'gts')
    with pytest.raises(ValueError, match='files of .* are missing'):
        convert_nuscenes(str(linked), VERSION, progress=False, skip_incomplete=True)


def test_one_split_is_converted_and_checked_alone(linked):
    (path,) = convert_nuscenes(str(linked), VERSION, progress=False, only=['val'])
    assert path.endswith('radocc_infos_val.pkl')
    assert check_nuscenes(str(linked), VERSION, progress=False) == [path]
    with pytest.raises(ValueError, match='radocc_infos_train.pkl'):
        check_nuscenes(str(linked), VERSION, progress=False, only=['train', 'val'])
    with pytest.raises(ValueError, match="some of .'train', 'val'"):
        check_nuscenes(str(linked), VERSION, progress=False, only=['test'])


def test_home_and_variables_in_paths_are_replaced(linked, monkeypatch):
    monkeypatch.setenv('HOME', str(linked.parent))
    monkeypatch.setenv('NUSCENES', linked.name)
    paths = convert_nuscenes('~/$NUSCENES', VERSION, progress=False)
    assert paths[0] == str(linked / 'radocc_infos_train.pkl')
    dataset = Occ3DNuScenesDataset(ann_file='radocc_infos_val.pkl', data_root='~/$NUSCENES')
    assert dataset.get_data_info(0)['img_path'][0].startswith(str(linked))
    with pytest.raises(ValueError, match='not set: .*NOWHERE'):
        Occ3DNuScenesDataset(ann_file='radocc_infos_val.pkl', data_root='$NOWHERE/data')
