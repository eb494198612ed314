import numpy as np
import pytest
from PIL import Image

from radocc_plugin import occ3d
from radocc_plugin.datasets import LoadOcc3D, LoadSegments


def _labels(**changes):
    fields = {
        name: np.zeros(occ3d.GRID_SHAPE, np.uint8)
        for name in ('semantics', 'mask_lidar', 'mask_camera')
    }
    fields.update(changes)
    return {name: v for name, v in fields.items() if v is not None}


def test_labels_are_read_with_boolean_masks(sample):
    occ = LoadOcc3D()(sample)['gt_occ']
    stored = np.load(sample['occ_path'])
    assert occ['semantics'].dtype == np.uint8
    np.testing.assert_array_equal(occ['semantics'], stored['semantics'])
    for name in ('mask_lidar', 'mask_camera'):
        assert occ[name].dtype == bool
        np.testing.assert_array_equal(occ[name], stored[name] == 1)


GRID = occ3d.GRID_SHAPE


@pytest.mark.parametrize('changes, names', (
    (dict(semantics=np.full(GRID, 255, np.uint8)), 'semantics.*255'),
    (dict(semantics=np.full(GRID, -1, np.int8)), 'semantics.*-1'),
    (dict(semantics=np.zeros((200, 200, 8), np.uint8)),
     r'semantics.*\(200, 200, 8\)'),
    (dict(mask_camera=np.zeros(GRID)), 'mask_camera.*float64'),
    (dict(mask_lidar=None), 'mask_lidar'),
))
def test_labels_that_do_not_fit_name_file_and_field(sample, tmp_path, changes,
                                                    names):
    path = tmp_path / 'labels.npz'
    np.savez(path, **_labels(**changes))
    sample['occ_path'] = str(path)
    with pytest.raises(ValueError, match=names) as error:
        LoadOcc3D()(sample)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    'damage',
    ('missing', 'empty', 'text', 'truncated', 'flipped', 'pickled', 'npy'))
def test_corrupt_labels_name_the_file(sample, tmp_path, damage):
    path = tmp_path / 'labels.npz'
    content = bytearray(open(sample['occ_path'], 'rb').read())
    if damage == 'flipped':
        content[len(content) // 3] ^= 0xff
    contents = dict(
        empty=b'',
        text=b'not an archive',
        truncated=content[:len(content) // 2],
        flipped=content)
    if damage in contents:
        path.write_bytes(contents[damage])
    elif damage == 'pickled':
        np.savez(path, **_labels(semantics=np.array([{}], object)))
    elif damage == 'npy':
        with open(path, 'wb') as file:
            np.save(file, np.zeros(occ3d.GRID_SHAPE, np.uint8))
    sample['occ_path'] = str(path)
    with pytest.raises(ValueError, match='labels.npz'):
        LoadOcc3D()(sample)


def test_a_sample_without_labels_is_named(sample):
    del sample['occ_path']
    with pytest.raises(ValueError, match='token0.*occ_path.*create_data'):
        LoadOcc3D()(sample)


def test_segments_belong_to_the_raw_images(sample):
    segments = LoadSegments()(sample)['segments']
    assert segments.dtype == np.int32
    np.testing.assert_array_equal(
        segments, np.tile(np.arange(45 * 80).reshape(45, 80), (6, 1, 1)))


def test_resized_segments_hold_the_id_at_each_new_pixel_centre(sample):
    segments = LoadSegments(size=(9, 16))(sample)['segments']
    ids = np.arange(45 * 80).reshape(45, 80)
    np.testing.assert_array_equal(segments[0], ids[2::5, 2::5])


def test_missing_segments_name_the_file_and_the_command(sample):
    with pytest.raises(
            ValueError,
            match=r'other/samples/CAM_FRONT_LEFT/token0.png.*'
            r'tools/generate_segments.py'):
        LoadSegments('other')(sample)


def test_segments_of_another_format_are_named(sample, tmp_path):
    path = tmp_path / 'samples/CAM_FRONT_LEFT/token0.png'
    path.parent.mkdir(parents=True)
    Image.new('RGB', (80, 45)).save(path)
    with pytest.raises(ValueError, match='token0.png'):
        LoadSegments(str(tmp_path))(sample)
