import re

import numpy as np
import pytest
import torch

from radocc_plugin import occ3d
from radocc_plugin.datasets import AugmentBEV, LoadLidarPoints, LoadOcc3D
from radocc_plugin.datasets.transforms.bev import bda_matrix, move_labels
from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.label_space import UNLABELLED

FLIPS = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
GRID = VoxelGrid(occ3d.POINT_CLOUD_RANGE, occ3d.GRID_SHAPE)


def _voxelise(points):
    volume = np.full(occ3d.GRID_SHAPE, occ3d.FREE, np.uint8)
    cells, inside = GRID.index(torch.from_numpy(points[:, :3].copy()))
    volume[tuple(cells[inside].numpy().T)] = 4
    return volume


@pytest.mark.parametrize('flips', FLIPS)
def test_flipped_points_fill_the_flipped_voxels(sample, flips):
    sample = LoadLidarPoints()(sample)
    original = sample['points'].copy()
    volume = _voxelise(original)
    sample['gt_occ'] = dict(semantics=volume, mask_camera=volume == 4)
    sample = AugmentBEV(*flips)(sample)
    flipped = sample['gt_occ']['semantics']
    np.testing.assert_array_equal(flipped, _voxelise(sample['points']))
    np.testing.assert_array_equal(sample['gt_occ']['mask_camera'], flipped == 4)
    np.testing.assert_allclose(
        sample['points'][:, :3], original[:, :3] @ sample['bda_mat'][:3, :3].T
    )
    assert np.array_equal(sample['bda_mat'], np.eye(4)) == (flips == (0.0, 0.0))


@pytest.mark.parametrize('loader', (LoadLidarPoints, LoadOcc3D))
def test_loading_after_the_augmentation_is_refused(sample, loader):
    sample = AugmentBEV(flip_x_prob=1.0)(sample)
    with pytest.raises(ValueError, match=f'{loader.__name__}.*AugmentBEV'):
        loader()(sample)


def test_turned_points_fill_the_turned_voxels(sample):
    """But for the border of voxels, which a look-up at centres moves."""
    ground = np.full(occ3d.GRID_SHAPE, occ3d.FREE, np.uint8)
    ground[:, :, :8] = 11
    ground[120:150, 60:110] = 4
    np.random.seed(3)
    points = np.random.uniform((-39, -39, -0.9), (39, 39, 5.3), (20000, 3))
    cells, _ = GRID.index(torch.from_numpy(points))
    before = ground[tuple(cells.numpy().T)]
    sample.update(
        points=np.concatenate([points, np.zeros((len(points), 2))], 1),
        gt_occ=dict(semantics=ground, mask_camera=ground == 4),
    )
    sample = AugmentBEV(0.5, 0.5, rotate=(20, 40), scale=(0.9, 0.95))(sample)
    turned = sample['gt_occ']['semantics']
    cells, inside = GRID.index(torch.from_numpy(sample['points'][:, :3]))
    after = turned[tuple(cells[inside].numpy().T)]
    assert inside.float().mean() > 0.9
    assert (after == before[inside.numpy()]).mean() > 0.97
    # never a label where there was none, and none in a mask
    np.testing.assert_array_equal(sample['gt_occ']['mask_camera'], turned == 4)
    assert turned.dtype == np.uint8 and set(np.unique(turned)) == {4, 11, occ3d.FREE, UNLABELLED}
    assert turned[0, 0, 0] == UNLABELLED


@pytest.mark.parametrize('angle, times', ((90.0, 1), (180.0, 2), (-90.0, 3)))
def test_quarter_turns_are_exact(angle, times):
    generator = np.random.default_rng(0)
    volume = generator.integers(0, 18, occ3d.GRID_SHAPE).astype(np.uint8)
    turned = move_labels(
        dict(semantics=volume), bda_matrix(angle, 1, False, False), occ3d.POINT_CLOUD_RANGE
    )
    np.testing.assert_array_equal(turned['semantics'], np.rot90(volume, times))


@pytest.mark.parametrize('bad', (dict(scale=(0.0, 1.0)), dict(rotate=(3, -3))))
def test_bad_ranges_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        AugmentBEV(**bad)


def test_golden_bda_and_gt(golden, sample):
    case = golden.case('bda_and_gt')
    names = dict(labels='semantics', mask_lidar='mask_lidar', mask_camera='mask_camera')
    for angle, scale, flip_x, flip_y in case.config['combos']:
        sample['bda_mat'] = np.eye(4)
        sample['gt_occ'] = {ours: case.input(theirs).numpy() for theirs, ours in names.items()}
        augment = AugmentBEV(
            flip_x, flip_y, rotate=(angle, angle), scale=(scale, scale), turn_labels=False
        )
        sample = augment(sample)
        key = f'{angle:g}_{scale:g}_{flip_x}_{flip_y}'
        golden.compare(case, f'{key}/bda', sample['bda_mat'][:3, :3].astype(np.float32))
        for theirs, ours in names.items():
            golden.compare(case, f'{key}/{theirs}', np.ascontiguousarray(sample['gt_occ'][ours]))


def test_golden_fbocc_gt_layout(golden, sample):
    case = golden.case('fbocc_gt_layout')
    for name in case.output_names():
        if not name.startswith('gt_'):
            continue
        key = name[len('gt_') :]
        angle, flip_x, flip_y = map(float, re.fullmatch(r'rot(.+)_fx(.)_fy(.)', key).groups())
        sample['bda_mat'] = np.eye(4)
        sample['gt_occ'] = dict(
            semantics=case.input('semantics').numpy(),
            mask_camera=case.input('mask_camera').numpy().astype(bool),
        )
        sample = AugmentBEV(flip_x, flip_y, rotate=(angle, angle))(sample)
        golden.compare(case, f'bda_{key}', sample['bda_mat'][:3, :3].astype(np.float32))
        occ = sample['gt_occ']
        labels = np.where(
            occ['mask_camera'], occ['semantics'] + 1, case.config['constructor']['fill_value']
        )
        golden.compare(case, name, np.ascontiguousarray(labels.transpose(1, 0, 2)).astype(np.uint8))
