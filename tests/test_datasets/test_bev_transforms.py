import numpy as np
import pytest
import torch

from radocc_plugin import occ3d
from radocc_plugin.datasets import AugmentBEV, LoadLidarPoints, LoadOcc3D
from radocc_plugin.geometry import VoxelGrid

FLIPS = ((0., 0.), (1., 0.), (0., 1.), (1., 1.))
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
    np.testing.assert_array_equal(sample['gt_occ']['mask_camera'],
                                  flipped == 4)
    np.testing.assert_allclose(sample['points'][:, :3],
                               original[:, :3] @ sample['bda_mat'][:3, :3].T)
    assert np.array_equal(sample['bda_mat'], np.eye(4)) == (flips == (0., 0.))


@pytest.mark.parametrize('loader', (LoadLidarPoints, LoadOcc3D))
def test_loading_after_the_augmentation_is_refused(sample, loader):
    sample = AugmentBEV(flip_x_prob=1.)(sample)
    with pytest.raises(ValueError, match=f'{loader.__name__}.*AugmentBEV'):
        loader()(sample)


@pytest.mark.parametrize('flip_x, flip_y', FLIPS)
def test_golden_bda_and_gt(golden, sample, flip_x, flip_y):
    module, folder = golden
    case = module.load_case(str(folder / 'bda_and_gt.json'))
    names = dict(
        labels='semantics', mask_lidar='mask_lidar', mask_camera='mask_camera')
    sample['gt_occ'] = {
        ours: case.input(theirs).numpy()
        for theirs, ours in names.items()
    }
    sample = AugmentBEV(flip_x, flip_y)(sample)
    key = f'0_1_{flip_x:.0f}_{flip_y:.0f}'
    module.compare(case, f'{key}/bda',
                   sample['bda_mat'][:3, :3].astype(np.float32))
    for theirs, ours in names.items():
        module.compare(case, f'{key}/{theirs}',
                       np.ascontiguousarray(sample['gt_occ'][ours]))
