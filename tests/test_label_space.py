"""Label spaces as data."""

import numpy as np
import pytest
from tests.support.label_spaces import small_space

from radocc_plugin.label_space import LabelSpace, label_space_of
from radocc_plugin.occ3d import OCC3D_NUSCENES

NEAR = (-20.0, -20.0, -1.0, 20.0, 20.0, 5.4)


def test_metainfo_and_back_is_the_same_space():
    for space in (OCC3D_NUSCENES, OCC3D_NUSCENES.cropped(NEAR)):
        assert LabelSpace.from_metainfo(dict(space.metainfo(), more=1)) == (space)


def test_a_part_covers_its_slice_of_the_files():
    part = OCC3D_NUSCENES.cropped((-20.0, 0.0, -0.2, 8.0, 40.0, 5.4))
    assert part.shape == (70, 100, 14)
    assert part.file_shape == (200, 200, 16)
    assert part.file_slices() == (slice(50, 120), slice(100, 200), slice(2, 16))
    # the same metric point is in the same voxel of both
    file = np.arange(200 * 200 * 16).reshape(200, 200, 16)
    centres = OCC3D_NUSCENES.grid.centres()[part.file_slices()]
    np.testing.assert_allclose(part.grid.centres(), centres, atol=1e-4)
    assert file[part.file_slices()].shape == part.shape
    again = part.cropped(NEAR[:3] + (0.0, 20.0, 5.4))
    assert again.file_slices()[0] == slice(50, 100)


@pytest.mark.parametrize(
    'extent',
    [
        (-20.1, -20, -1, 20, 20, 5.4),
        (-44, -20, -1, 20, 20, 5.4),
        (-20, -20, -1, 20, 20, 5.8),
        (20, -20, -1, -20, 20, 5.4),
        (-20, -20, -1, 20, 20.2, 5.4),
    ],
)
def test_a_part_is_a_box_of_whole_voxels(extent):
    with pytest.raises(ValueError, match='point_cloud_range'):
        OCC3D_NUSCENES.cropped(extent)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(palette=((0, 0, 0),)), 'palette takes 18 colours'),
        (dict(masks=('radar',)), 'masks takes names'),
        (dict(frame='world'), "frame takes one of .* got 'world'"),
        (dict(voxel_size=0.3), 'voxel_size 0.3 does not divide'),
        (dict(classes=('car', 'car')), 'classes takes two names or more'),
        (dict(groups=dict(air=('free',))), "groups takes names of occupied .*'air'"),
    ],
)
def test_a_description_that_does_not_fit_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        LabelSpace.from_metainfo(dict(OCC3D_NUSCENES.metainfo(), **change))


def test_missing_fields_name_the_owner():
    with pytest.raises(ValueError, match='metainfo of my dataset .* palette'):
        LabelSpace.from_metainfo(dict(classes=('car', 'free')), 'my dataset')
    with pytest.raises(ValueError, match='LoadX takes .* sample t0 has None'):
        label_space_of(dict(token='t0'), 'LoadX')


def test_spaces_that_differ_say_in_what():
    assert OCC3D_NUSCENES.difference(OCC3D_NUSCENES) == ''
    near = OCC3D_NUSCENES.cropped(NEAR)
    assert 'point_cloud_range' in OCC3D_NUSCENES.difference(near)
    assert near.difference(small_space(NEAR)) == ''
    coarse = small_space(OCC3D_NUSCENES.point_cloud_range, 0.8)
    assert 'voxel_size' in OCC3D_NUSCENES.difference(coarse)


def test_masks_that_do_not_come_with_the_labels_are_named():
    bare = LabelSpace.from_metainfo(dict(OCC3D_NUSCENES.metainfo(), masks=()))
    assert bare.mask('none', 'X') == bare.mask(None, 'X') == 'none'
    assert OCC3D_NUSCENES.mask(None, 'X') == 'camera'
    with pytest.raises(ValueError, match="X takes mask .*, got 'camera'"):
        bare.mask('camera', 'X')
