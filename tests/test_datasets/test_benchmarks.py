"""Every benchmark: its files, its metric, and a whole RadOcc run."""

import importlib.util
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from PIL import Image

from radocc_plugin import benchmarks, occ3d
from radocc_plugin.datasets import BENCHMARKS, Occ3DWaymoDataset, OpenOccDataset, SurroundOccDataset
from radocc_plugin.datasets.info_file import save_infos
from radocc_plugin.datasets.transforms import LoadLidarPoints, LoadSegments
from radocc_plugin.datasets.waymo_infos import convert_waymo
from radocc_plugin.evaluation import OccMetric, RayIoU, prediction_path, scene_lidar_origins
from radocc_plugin.registry import DATASETS, TRANSFORMS
from radocc_plugin.segments import write_label_map
from radocc_plugin.structures import OccData, OccDataSample

ROOT = Path(__file__).resolve().parents[2]
SPACES = {
    'occ3d-nuscenes': occ3d.OCC3D_NUSCENES,
    'surroundocc': benchmarks.SURROUNDOCC_NUSCENES,
    'openocc': benchmarks.OPENOCC_V2,
    'occ3d-waymo': benchmarks.OCC3D_WAYMO,
}
# Twins of the shipped configs, and a range of 40 x 40 x 16 voxels.
TWINS = {
    'occ3d-nuscenes': 'r50-256x704_8xb4-24e_occ3d',
    'surroundocc': 'r50-256x704_8xb4-24e_surroundocc',
    'openocc': 'r50-256x704_8xb4-24e_openocc',
    'occ3d-waymo': 'r50-640x960_8xb4-24e_waymo',
}
NEAR = {
    name: (
        -20 * s.voxel_size,
        -20 * s.voxel_size,
        s.point_cloud_range[2],
        20 * s.voxel_size,
        20 * s.voxel_size,
        s.point_cloud_range[5],
    )
    for name, s in SPACES.items()
}


def load_tool(name):
    spec = importlib.util.spec_from_file_location(f'tool_{name}', ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def street(space, seed):
    """Ground, walls and boxes of all classes; free last."""
    rng = np.random.default_rng(seed)
    labels = np.full(space.file_shape, space.free, np.uint8)
    labels[:, :, 1] = space.free - 4
    labels[::40, :, 1:6] = space.free - 2
    for place in range(300):
        x, y = rng.integers(60, 140, 2)
        labels[x : x + 3, y : y + 3, 2:5] = place % space.free
    return labels


def write_waymo(root):
    """Two frames of a scene of each split, in the published layout."""
    rng = np.random.default_rng(0)
    for split, digit, poses in (('training', 0, 'cam_infos'), ('validation', 1, 'cam_infos_vali')):
        frames = {}
        for frame in (0, 1):
            token = f'{digit}003{frame:03d}'
            cameras = []
            # the poses have the front right camera fourth, its folder third
            for folder, angle in ((0, 0), (1, 45), (3, 90), (2, -45), (4, -90)):
                turn = np.deg2rad(angle)
                sensor2ego = np.eye(4)
                ahead = np.array([np.cos(turn), np.sin(turn), 0])
                right = np.array([np.sin(turn), -np.cos(turn), 0])
                sensor2ego[:3, :3] = np.stack([right, [0, 0, -1], ahead], 1)
                sensor2ego[:3, 3] = 1.5, 0, 2
                intrinsics = np.eye(4)
                intrinsics[:3, :3] = [[50 + folder, 0, 36], [0, 50, 24], [0, 0, 1]]
                ego2global = np.eye(4)
                ego2global[0, 3] = 2 * frame
                cameras.append(
                    dict(sensor2ego=sensor2ego, intrinsics=intrinsics, ego2global=ego2global)
                )
                height = 34 if folder > 2 else 48
                path = f'training/image_{folder}/{token}'
                image = root / 'kitti_format' / f'{path}.jpg'
                image.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 255, (height, 72, 3), np.uint8)).save(image)
                write_label_map(
                    root / 'segments/kitti_format' / f'{path}.png', np.ones((height, 72), int)
                )
            frames[frame] = cameras
            points = rng.uniform(-9, 9, (400, 6)).astype(np.float32)
            points[:, 2] = rng.uniform(-1, 1, 400)
            points[:, 3] = np.abs(points[:, 3])
            sweep = root / f'kitti_format/training/velodyne/{token}.bin'
            sweep.parent.mkdir(parents=True, exist_ok=True)
            points.tofile(sweep)
            space = SPACES['occ3d-waymo']
            labels = street(space, frame)
            path = root / f'occ3d/{split}/003/{frame:03d}_04.npz'
            path.parent.mkdir(parents=True, exist_ok=True)
            seen = rng.integers(0, 2, (3, *labels.shape), np.uint8)
            np.savez_compressed(
                path,
                voxel_label=np.where(labels == space.free, 23, labels),
                origin_voxel_state=seen[0],
                final_voxel_state=seen[1],
                infov=seen[2],
            )
        (root / f'occ3d/{poses}.pkl').write_bytes(pickle.dumps({3: frames}))
    convert_waymo(str(root), progress=False)


@pytest.fixture(scope='module')
def roots(_pristine, tmp_path_factory):
    """Data root, info file and further arguments of each dataset."""
    nuscenes, infos = _pristine
    labels = tmp_path_factory.mktemp('labels')
    for index, info in enumerate(infos):
        occ = labels / 'gts' / info['scene_name'] / info['token']
        occ.mkdir(parents=True)
        rng = np.random.default_rng(index)
        volume = street(SPACES['occ3d-nuscenes'], index)
        masks = rng.integers(0, 2, (2, *volume.shape), np.uint8)
        np.savez_compressed(
            occ / 'labels.npz', semantics=volume, mask_camera=masks[0], mask_lidar=masks[1]
        )
        volume = street(SPACES['openocc'], index)
        occ = labels / 'openocc_v2' / info['scene_name'] / info['token']
        occ.mkdir(parents=True)
        np.savez_compressed(occ / 'labels.npz', semantics=volume, flow=np.zeros((2, 2), np.float32))
        volume = street(SPACES['surroundocc'], index)
        cells = np.argwhere(volume < 16)
        classes = volume[tuple(cells.T)] + 1
        classes[rng.random(len(classes)) < 0.1] = 0  # noise
        occ = labels / 'surroundocc'
        occ.mkdir(exist_ok=True)
        sweep = Path(info['lidar_points']['lidar_path']).name
        np.save(occ / f'{sweep}.npy', np.column_stack([cells, classes]).astype(np.int64))
    moved = [dict(i, occ_path=str(labels / i['occ_path'].replace('gts', 'gts', 1))) for i in infos]
    path = labels / 'radocc_infos_val.pkl'
    save_infos(
        dict(metainfo=dict(dataset='nuscenes', version='v1.0-tiny'), data_list=moved), str(path)
    )
    waymo = tmp_path_factory.mktemp('waymo')
    write_waymo(waymo)
    common = dict(data_root=str(nuscenes), ann_file=str(path))
    return {
        'occ3d-nuscenes': common,
        'surroundocc': dict(common, occ_root=str(labels / 'surroundocc')),
        'openocc': dict(common, occ_root=str(labels / 'openocc_v2')),
        'occ3d-waymo': dict(data_root=str(waymo), ann_file='radocc_infos_val.pkl'),
    }


def raw_labels(name, path):
    """A plain reading of a label file: labels, and what the metric counts."""
    if name == 'surroundocc':
        labels, counted = np.full((200, 200, 16), 16), np.ones((200, 200, 16), bool)
        for x, y, z, c in np.load(path):
            labels[x, y, z], counted[x, y, z] = c - 1, c > 0
        return labels, counted
    file = np.load(path)
    if name == 'occ3d-waymo':
        labels = file['voxel_label'].copy()
        labels[labels == 23] = 15
        return labels, (file['final_voxel_state'] * file['infov']) == 1
    labels = file['semantics']
    if name == 'openocc':
        return labels, np.ones(labels.shape, bool)
    return labels, file['mask_camera'] == 1


def recount(frames, free):
    """mIoU and IoU in percent by voxel sets."""
    truth, guess = (np.concatenate(v) for v in zip(*frames))
    ious = []
    for c in range(free):
        either = ((truth == c) | (guess == c)).sum()
        if either:
            ious.append(((truth == c) & (guess == c)).sum() / either)
    filled = ((truth != free) & (guess != free)).sum()
    return 100 * np.mean(ious), 100 * filled / ((truth != free) | (guess != free)).sum()


def tiny_config(name, root, folder):
    """The shipped twin with tiny student, teacher and volume."""
    config = Config.fromfile(ROOT / f'configs/radocc/radocc_bevdet-occ_{TWINS[name]}.py')
    space, near = SPACES[name], NEAR[name]
    student = Config.fromfile(ROOT / 'projects/BEVDetOcc/configs/_base_/bevdet-occ_tiny.py').model
    student = student.to_dict()
    cell = 2 * space.voxel_size
    student['img_view_transformer']['grid_config'].update(
        {axis: (near[i], near[i + 3], cell) for i, axis in enumerate('xyz')}
    )
    head = config.model.student.occ_head
    student['occ_head'].update(
        num_classes=head.get('num_classes', 18),
        use_mask=head.get('use_mask', True),
        class_weight=None,
    )
    teacher = dict(
        student,
        type='radocc_plugin.OccTeacher',
        pts_voxel_encoder=dict(
            type='radocc_plugin.VoxelMean', point_cloud_range=near, voxel_size=space.voxel_size
        ),
        pts_middle_encoder=dict(
            type='radocc_plugin.CustomResNet3D',
            numC_input=6,
            num_layer=(1,),
            num_channels=(16,),
            stride=(2,),
        ),
        pts_fusion=dict(
            type='radocc_plugin.ConvFuser3D', camera_channels=16, lidar_channels=16, out_channels=16
        ),
        depth_from_lidar=True,
    )
    config.model.student = student
    config.model.teacher = dict(model=teacher)
    config.model.renderer.update(
        point_cloud_range=near, render_size=(9, 16), max_rays=100, backend='torch'
    )
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        config[loader].update(batch_size=1, num_workers=0, persistent_workers=False)
        dataset = config[loader].dataset
        dataset.update(root, point_cloud_range=near, outside_root=True)
        for step in dataset.pipeline:
            if 'input_size' in step:
                step.update(input_size=(32, 64), resize=(0.0, 0.0), rotate=(0.0, 0.0))
            if 'pad_to' in step:
                step.pad_to = (48, 72)
            if step.type.endswith('LoadSegments'):
                step.size = (9, 16)
    config.update(
        train_cfg=dict(by_epoch=True, max_epochs=1, val_interval=10),
        custom_hooks=[
            dict(
                type='radocc_plugin.OccVisualizationHook',
                out_dir=str(folder / 'pictures'),
                interval=2,
                render_size=(9, 16),
            )
        ],
        load_from=None,
        work_dir=str(folder / 'work'),
    )
    path = folder / 'config.py'
    config.dump(path)
    return path


@pytest.mark.parametrize('name', TWINS)
def test_train_test_table_and_picture(name, roots, tmp_path):
    """From the shipped config to the table, measured by a plain re-count."""
    path = tiny_config(name, roots[name], tmp_path)
    config = Config.fromfile(path)
    Runner.from_cfg(config).train()
    checkpoint = Path(config.work_dir) / 'epoch_1.pth'
    space = SPACES[name].cropped(NEAR[name])
    trained = torch.load(checkpoint, weights_only=False)['meta']
    assert trained['dataset_meta']['classes'] == space.classes

    record = tmp_path / 'record.json'
    load_tool('test').main(
        [str(path), str(checkpoint), '--record', str(record), '--dump', str(tmp_path / 'dump')]
    )
    dataset = DATASETS.build(config.test_dataloader.dataset)
    part, frames = space.file_slices(), []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        labels, counted = (v[part] for v in raw_labels(name, info['occ_path']))
        guess = np.load(prediction_path(tmp_path / 'dump', info['scene_name'], info['token']))[
            'semantics'
        ]
        frames.append((labels[counted], guess[counted]))
    measured = json.loads(record.read_text())
    miou, iou = recount(frames, space.free)
    assert measured['metrics']['mIoU'] == pytest.approx(miou)
    assert measured['metrics']['IoU'] == pytest.approx(iou)
    assert measured['mask'] == space.mask(None, 'test')
    assert measured['label_space']['label_space'] == space.label_space
    assert ('RayIoU' in measured['metrics']) == (name == 'openocc')

    load_tool('reproduce_table').main([str(record), '--out', str(tmp_path / 'table')])
    table = (tmp_path / 'table/table.md').read_text()
    header = [cell.strip() for cell in table.splitlines()[0].split('|')]
    assert [c for c in header if c in space.classes] == [*space.classes[:-1]]
    assert f'{space.free} non-free classes' in table
    assert len(list((tmp_path / 'pictures').rglob('*.png'))) == 1


@pytest.mark.parametrize('name', ('surroundocc', 'openocc', 'occ3d-waymo'))
def test_labels_are_those_of_the_file(name, roots):
    kind = BENCHMARKS[name]
    dataset = kind(pipeline=[dict(type=kind.LABEL_LOADER)], **roots[name])
    occ = dataset[0]['gt_occ']
    labels, counted = raw_labels(name, dataset.get_data_info(0)['occ_path'])
    assert set(occ) == {'semantics', *(f'mask_{m}' for m in SPACES[name].masks)}
    known = occ['semantics'] != 255
    if name == 'surroundocc':
        np.testing.assert_array_equal(known, counted)
    if name == 'occ3d-waymo':
        np.testing.assert_array_equal(occ['mask_camera'], counted)
    np.testing.assert_array_equal(occ['semantics'][known], labels[known])
    assert occ['semantics'].dtype == np.uint8


def surroundocc_file(rows):
    return dict(surroundocc=lambda path: np.save(path, np.array(rows)))


def waymo_file(**changes):
    fields = dict.fromkeys(
        ('voxel_label', 'origin_voxel_state', 'final_voxel_state', 'infov'),
        np.zeros((200, 200, 16), np.uint8),
    )
    fields.update(changes)
    return {'occ3d-waymo': lambda path: np.savez(path, **fields)}


@pytest.mark.parametrize(
    'case, message',
    [
        (surroundocc_file([[0, 0, 0]]), r'rows \(x, y, z, class\)'),
        (surroundocc_file([[200, 0, 0, 1]]), r'voxels of a grid of \(200'),
        (surroundocc_file([[0, 0, 0, 17]]), 'classes 0 to 16, got 17 to 17'),
        (surroundocc_file([[0, 0, 0.5, 1]]), 'voxels of a grid'),
        (
            waymo_file(voxel_label=np.full((200, 200, 16), 15, np.uint8)),
            r'0 to 14 and 23 for free space, got \[15\]',
        ),
        (waymo_file(infov=np.zeros((2, 2, 2), np.uint8)), r'infov .*\(2, 2, 2\)'),
        (
            dict(
                openocc=lambda path: np.savez(path, semantics=np.full((200, 200, 16), 17, np.uint8))
            ),
            r'classes 0 to 16, got \[17\]',
        ),
        (dict(surroundocc=lambda path: Path(path).write_bytes(b'x')), 'npy'),
    ],
)
def test_files_that_do_not_fit_are_named(case, message, roots, tmp_path):
    ((name, write),) = case.items()
    kind = BENCHMARKS[name]
    sample = kind(**roots[name]).get_data_info(0)
    sample['occ_path'] = str(tmp_path / ('bad.npy' if name == 'surroundocc' else 'bad.npz'))
    write(sample['occ_path'])
    with pytest.raises(ValueError, match=message) as error:
        TRANSFORMS.build(dict(type=kind.LABEL_LOADER))(sample)
    assert sample['occ_path'] in str(error.value)


def test_in_the_lidar_frame_everything_sees_the_same_world(roots, tiny_infos):
    """Points and cameras of SurroundOcc are those of the ego frame, moved."""
    root = roots['surroundocc']
    lidar = SurroundOccDataset(test_mode=True, **root).get_data_info(0)
    ego = OpenOccDataset(test_mode=True, **roots['openocc']).get_data_info(0)
    lidar2ego = ego['lidar2ego']
    np.testing.assert_array_equal(lidar['lidar2ego'], np.eye(4))
    for name in ('cam2ego',):
        np.testing.assert_allclose(lidar2ego @ lidar[name], ego[name], atol=1e-9)
    np.testing.assert_allclose(lidar['ego2global'], ego['ego2global'] @ lidar2ego, atol=1e-9)
    moved = [LoadLidarPoints(num_sweeps=1)(dict(s))['points'][:, :3] for s in (lidar, ego)]
    np.testing.assert_allclose(
        moved[0] @ lidar2ego[:3, :3].T + lidar2ego[:3, 3], moved[1], atol=1e-9
    )
    np.testing.assert_allclose(
        lidar['lidar_origins'] @ lidar2ego[:3, :3].T + lidar2ego[:3, 3],
        ego['lidar_origins'],
        atol=1e-3,
    )
    with pytest.raises(ValueError, match="key_ego='lidar' and can_bus=None"):
        SurroundOccDataset(key_ego='CAM_FRONT', **root)


def test_waymo_cameras_have_their_own_poses_and_sizes(roots):
    dataset = Occ3DWaymoDataset(adjacent=(1,), **roots['occ3d-waymo'])
    first, second = (dataset.get_data_info(i) for i in range(2))
    # the focal length of a camera tells its folder
    focal = second['cam2img'][:, 0, 0]
    np.testing.assert_array_equal(focal, 50 + np.arange(5))
    assert [Path(p).parent.name for p in second['img_path']] == [f'image_{i}' for i in range(5)]
    forward = second['cam2ego'][:, :3, 2]
    np.testing.assert_allclose(
        np.degrees(np.arctan2(forward[:, 1], forward[:, 0])), [0, 45, -45, 90, -90], atol=1e-6
    )
    assert (first['token'], second['token']) == ('1003000', '1003001')
    assert second['prev'] == '1003000' and first['next'] == '1003001'
    assert not first['adjacent'][0]['exists']
    assert second['adjacent'][0]['token'] == '1003000'
    # the vehicle drove 2 m
    (sweep,) = second['lidar_sweeps']
    np.testing.assert_allclose(sweep['lidar2ego'][:3, 3], [-2, 0, 0])
    points = LoadLidarPoints(num_sweeps=1, ego_vehicle=(0, 0, 0, 0))(second)['points']
    assert points.shape == (800, 5)
    load = TRANSFORMS.build(dict(type='radocc_plugin.LoadMultiViewImages', pad_to=(48, 72)))
    padded = load(dict(second))
    assert padded['ori_shape'] == (48, 72)
    assert padded['image_sizes'].tolist() == [[48, 72]] * 3 + [[34, 72]] * 2
    side = np.asarray(padded['img'][4])
    assert side.shape == (48, 72, 3) and not side[34:].any()
    np.testing.assert_array_equal(side[:34], np.asarray(Image.open(second['img_path'][4])))
    segments = LoadSegments(size=(24, 36))(padded)['segments']
    assert (segments[0] == 1).all()
    assert (segments[4, :17] == 1).all() and not segments[4, 17:].any()


@pytest.mark.parametrize(
    'miss, message',
    [
        ('kitti_format/training/image_4/1003001.jpg', 'image_4/1003001.jpg or'),
        ('occ3d/validation/003/001_04.npz', '003/001_04.npz'),
        ('occ3d/cam_infos_vali.pkl', 'cam_infos_vali.pkl takes the poses'),
    ],
)
def test_missing_files_of_waymo_are_named(miss, message, tmp_path):
    write_waymo(tmp_path)
    (tmp_path / miss).unlink()
    with pytest.raises(ValueError, match=message):
        convert_waymo(str(tmp_path), progress=False)


def test_waymo_takes_every_so_many_frames(tmp_path):
    write_waymo(tmp_path)
    convert_waymo(str(tmp_path), interval=2, progress=False)
    dataset = Occ3DWaymoDataset(data_root=str(tmp_path), ann_file='radocc_infos_train.pkl')
    assert len(dataset) == 1 and dataset.get_data_info(0)['next'] == ''


def test_the_real_label_against_itself_is_a_hundred(shared):
    """Counts as the README of the label states them."""
    path = shared / 'data/real/occ3d_label/labels.npz'
    if not path.is_file():
        pytest.skip(f'{path} is absent')
    space = occ3d.OCC3D_NUSCENES
    labels = TRANSFORMS.build(dict(type='radocc_plugin.LoadOcc3D'))(
        dict(occ_path=str(path), label_space=space, bda_mat=np.eye(4))
    )['gt_occ']
    occupied = labels['semantics'] < space.free
    assert occupied.sum() == 39092
    assert len(np.unique(labels['semantics'])) == 11  # with free
    assert labels['mask_camera'].sum() == 43355
    assert labels['mask_lidar'].sum() == 56601
    assert not (labels['mask_camera'] & ~labels['mask_lidar']).any()
    pose = np.eye(4)
    pose[:3, 3] = 0.94, 0, 1.84
    (origins,) = scene_lidar_origins(
        [dict(scene_name='s', volume2global=np.eye(4), lidar2global=pose)], space.point_cloud_range
    )
    volumes = {k: torch.from_numpy(v) for k, v in labels.items()}
    sample = OccDataSample(
        gt_occ=OccData(**volumes),
        pred_occ=OccData(semantics=volumes['semantics']),
        metainfo=dict(token='real', lidar_origins=origins),
    )
    evaluator = Evaluator([OccMetric(), RayIoU()])
    evaluator.dataset_meta = space.metainfo()
    evaluator.process([sample])
    result = evaluator.evaluate(1)
    assert result['occ/mIoU'] == result['occ/IoU'] == 100
    assert result['ray/RayIoU'] == 100
