import json

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate

from radocc_plugin import occ3d
from radocc_plugin.datasets import Occ3DNuScenesDataset
from radocc_plugin.datasets.info_converter import (DETECTION_CLASSES,
                                                   check_files,
                                                   convert_nuscenes)
from radocc_plugin.datasets.synthetic import generate
from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.structures import OccDataPreprocessor

VERSION = 'v1.0-synthetic'
PIPELINE = [
    dict(type='radocc_plugin.LoadMultiViewImages'),
    dict(type='radocc_plugin.AugmentMultiViewImages', input_size=(32, 64)),
    dict(type='radocc_plugin.LoadLidarPoints', num_sweeps=10),
    dict(type='radocc_plugin.LoadOcc3D'),
    dict(type='radocc_plugin.AugmentBEV', flip_x_prob=1., flip_y_prob=1.),
    dict(type='radocc_plugin.PointsToDepthMaps'),
    dict(type='radocc_plugin.PackOccInputs')
]


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
        covered |= ((np.abs(along) < length / 2 + margin) &
                    (np.abs(across) < width / 2 + margin) &
                    (np.abs(offset[:, 2]) < height / 2 + margin))
    return covered.mean()


def test_a_world_goes_through_converter_dataset_and_preprocessor(tmp_path):
    generate(
        tmp_path,
        scenes_train=1,
        scenes_val=0,
        frames=2,
        image_size=(80, 45),
        workers=1,
        progress=False)

    image = next((tmp_path / 'samples/CAM_BACK').iterdir())
    content = image.read_bytes()
    image.unlink()
    with pytest.raises(ValueError, match=f'synthetic-0001: 1.*{image.name}'):
        convert_nuscenes(str(tmp_path), VERSION)
    assert not list(tmp_path.glob('*.pkl'))
    image.write_bytes(content)

    train, val = convert_nuscenes(str(tmp_path), VERSION)
    root = dict(data_root=str(tmp_path), pipeline=PIPELINE)
    with pytest.raises(ValueError, match='infos_val.pkl holds no sample'):
        Occ3DNuScenesDataset(ann_file=val, **root)
    dataset = Occ3DNuScenesDataset(ann_file=train, **root)
    first, second = (dataset.get_data_info(i) for i in range(2))
    assert first['next'] == second['token']
    assert second['prev'] == first['token'] and second['next'] == ''
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
        assert sample.scene_name == 'synthetic-0001'
        key = points[points[:, 4] == 0]
        assert _share_of_points_in_occupied_voxels(key, sample.gt_occ) > 0.95
    assert points[:, 4].unique().shape == torch.Size([3])

    splits = tmp_path / VERSION / 'splits.json'
    splits.write_text(json.dumps(dict(train=['synthetic-0099'], val=[])))
    with pytest.raises(ValueError, match='synthetic-0099'):
        convert_nuscenes(str(tmp_path), VERSION)


def test_missing_files_are_counted_by_scene(tiny_root, tiny_infos):
    check_files(tiny_infos, str(tiny_root))
    tiny_infos[0]['occ_path'] = 'gts/nowhere/labels.npz'
    tiny_infos[1]['scene_name'] = 'other'
    for index, sensor in enumerate(('CAM_BACK', 'CAM_FRONT')):
        image = tiny_infos[1]['images'][sensor]
        image['img_path'] = f'samples/lost{index}.jpg'
    with pytest.raises(ValueError) as error:
        check_files(tiny_infos, str(tiny_root))
    report = str(error.value)
    assert '3 files of 2 scenes' in report
    assert 'scene: 1, e.g. gts/nowhere/labels.npz' in report
    assert 'other: 2, e.g. samples/lost' in report


def test_a_missing_version_is_named(tmp_path):
    with pytest.raises(ValueError, match='--version v1.0-mini'):
        convert_nuscenes(str(tmp_path), 'v1.0-mini')


@pytest.mark.parametrize('content', (None, 'no json', '[]', '{"train": []}'))
def test_a_bad_splits_file_is_named(tmp_path, content):
    (tmp_path / VERSION).mkdir()
    if content is not None:
        (tmp_path / VERSION / 'splits.json').write_text(content)
    with pytest.raises(ValueError, match='splits.json'):
        convert_nuscenes(str(tmp_path), VERSION)
