"""The real keyframe as a dataset, and what its stand-in labels promise."""

import numpy as np
import pytest
import torch

from radocc_plugin import occ3d
from radocc_plugin.datasets import Occ3DNuScenesDataset
from radocc_plugin.datasets.keyframe import convert_keyframe, voxelise_keyframe
from radocc_plugin.geometry import Cameras

PIPELINE = [
    dict(type='radocc_plugin.LoadMultiViewImages'),
    dict(type='radocc_plugin.AugmentMultiViewImages', input_size=(256, 704)),
    dict(type='radocc_plugin.LoadLidarPoints'),
    dict(type='radocc_plugin.LoadOcc3D'),
    dict(type='radocc_plugin.PointsToDepthMaps'),
    dict(type='radocc_plugin.PackOccInputs'),
]


@pytest.fixture(scope='module')
def item(shared, tmp_path_factory):
    source = shared / 'data' / 'nuscenes_frame'
    if not source.is_dir():
        pytest.skip(f'{source} is absent')
    root = tmp_path_factory.mktemp('keyframe')
    path = convert_keyframe(str(source), str(root))
    dataset = Occ3DNuScenesDataset(ann_file=path, data_root=str(root), pipeline=PIPELINE)
    assert len(dataset) == 1
    return dataset[0]


def test_keyframe_sample_is_complete(item):
    sample = item['data_samples']
    assert item['inputs']['img'].shape == (6, 3, 256, 704)
    assert item['inputs']['points'].shape[1] == 5
    assert sample.ori_shape == (900, 1600)
    semantics = sample.gt_occ.semantics
    found = {occ3d.CLASSES[i] for i in semantics.unique().tolist()}
    assert {'others', 'free', 'truck', 'car', 'pedestrian'} <= found
    occupied = semantics != occ3d.FREE
    assert bool(sample.gt_occ.mask_lidar[occupied].all())
    assert not bool((sample.gt_occ.mask_camera & ~sample.gt_occ.mask_lidar).any())


def test_keyframe_depth_maps_agree_with_direct_projection(item):
    sample = item['data_samples']
    cameras = Cameras.from_data_samples([sample])
    pixels, depths = cameras.project(item['inputs']['points'][None, :, :3])
    matrices = torch.from_numpy(sample.img_aug_mat).float()
    augmented = (
        (pixels[0] @ matrices[:, :2, :2].transpose(1, 2) + matrices[:, None, :2, 3]).floor().long()
    )
    height, width = sample.img_shape
    seen = (
        (depths[0] >= 1)
        & (depths[0] < 60)
        & (augmented >= 0).all(-1)
        & (augmented[..., 0] < width)
        & (augmented[..., 1] < height)
    )
    camera, _ = seen.nonzero(as_tuple=True)
    columns, rows = augmented[seen].T
    difference = sample.gt_depth[camera, rows, columns] - depths[0][seen]
    assert len(difference) > 10000
    assert difference.abs().median() < 1e-4
    # a nearer return may have won the pixel, a farther one never
    # (a handful of float32 pixels fall on the other side of a border)
    assert (difference < 1e-2).float().mean() > 0.999


def test_points_in_a_box_have_its_class_and_beams_clear_their_way():
    height = 1.0  # of the sensor above the ego origin
    lidar2ego = np.eye(4)
    lidar2ego[2, 3] = height
    points = np.array([[10.1, 0.1, 0.1], [0.1, 20.1, 0.1]])
    info = dict(
        lidar_points=dict(lidar2ego=lidar2ego),
        images={},
        instances=[dict(bbox_3d=[10, 0, 0, 2, 4, 2, np.pi / 2], bbox_label_3d=3)],
    )
    labels = voxelise_keyframe(info, points, dict(bus=3))
    semantics, mask = labels['semantics'], labels['mask_lidar']
    assert semantics[125, 100, 5] == occ3d.CLASSES.index('bus')
    assert semantics[100, 150, 5] == occ3d.CLASSES.index('others')
    assert (semantics != occ3d.FREE).sum() == 2
    assert mask[100:126, 100, 5].all() and mask[100, 100:151, 5].all()
    assert mask.sum() == 26 + 51 - 1
    assert labels['mask_camera'].sum() == 0


def test_a_folder_without_an_info_pickle_is_named(tmp_path):
    with pytest.raises(ValueError, match='data-root.*got 0'):
        convert_keyframe(str(tmp_path), str(tmp_path / 'out'))
