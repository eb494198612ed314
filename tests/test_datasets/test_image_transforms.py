import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from radocc_plugin.datasets import AugmentMultiViewImages, LoadMultiViewImages
from radocc_plugin.datasets.transforms import ResizeMultiViewImages
from radocc_plugin.datasets.transforms.images import (
    augment_image, image_augmentation_matrix)

RANDOM = dict(resize=(-0.2, 0.3), flip_prob=0.5, rotate=(-20, 20))


@pytest.mark.parametrize('flip', (False, True))
@pytest.mark.parametrize('angle', (0, 5.4, -12.))
@pytest.mark.parametrize('size, crop', (((120, 70), (10, 20, 110, 70)),
                                        ((160, 90), (40, 26, 140, 90))))
def test_the_matrix_says_where_each_pixel_went(size, crop, flip, angle):
    """Images that hold their own coordinates, read after augmentation."""
    height, width = 90, 160
    v, u = np.mgrid[:height, :width].astype(np.float32) + 0.5
    moved_u, moved_v = (
        np.asarray(
            augment_image(Image.fromarray(ramp), size, crop, flip, angle))
        for ramp in (u, v))
    matrix = image_augmentation_matrix((height, width), size, crop, flip,
                                       angle)
    rows, columns = np.mgrid[:moved_u.shape[0], :moved_u.shape[1]] + 0.5
    augmented = np.stack([
        columns,
        rows,
        np.ones_like(rows),
        np.ones_like(rows),
    ], -1)
    expected = augmented @ np.linalg.inv(matrix).T
    # away from borders, where bicubic weights come in, and black corners
    inside = ((moved_u > 0) & (expected[..., 0] > 6) &
              (expected[..., 0] < width - 6) & (expected[..., 1] > 6) &
              (expected[..., 1] < height - 6))
    # the rotation takes the nearest pixel: half a pixel of the crop's scale
    tolerance = (0.55 if angle else 0.02) * width / size[0]
    assert inside.sum() > 1000
    assert np.abs(moved_u - expected[..., 0])[inside].max() < tolerance
    assert np.abs(moved_v - expected[..., 1])[inside].max() < tolerance


def test_each_camera_has_its_own_draw_of_the_seed(sample):
    sample = LoadMultiViewImages()(sample)
    augment = AugmentMultiViewImages((24, 64), **RANDOM)
    results = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        results.append(augment(dict(sample))['img_aug_mat'])
    assert np.array_equal(results[0], results[1])
    assert not np.allclose(results[0], results[2])
    assert not np.allclose(results[0][0], results[0][1])


def test_default_ranges_are_deterministic_and_keep_the_lower_edge(sample):
    sample = AugmentMultiViewImages((24, 64))(LoadMultiViewImages()(sample))
    expected = np.eye(4)
    expected[[0, 1], [0, 1]] = 0.8  # 80 -> 64 pixels wide, 45 -> 36 high
    expected[1, 3] = -(36 - 24)
    np.testing.assert_allclose(sample['img_aug_mat'],
                               np.tile(expected, (6, 1, 1)))
    assert sample['img_shape'] == (24, 64)
    assert sample['ori_shape'] == (45, 80)
    assert {image.size for image in sample['img']} == {(64, 24)}


@pytest.mark.parametrize('damage', ('missing', 'truncated', 'text'))
def test_a_bad_image_is_named(sample, tmp_path, damage):
    path = tmp_path / 'broken.jpg'
    if damage != 'missing':
        content = open(sample['img_path'][2], 'rb').read()
        path.write_bytes(b'text' if damage == 'text' else content[:200])
    sample['img_path'][2] = str(path)
    with pytest.raises(ValueError, match='broken.jpg'):
        LoadMultiViewImages()(sample)


def test_an_image_of_another_size_is_named(sample, tmp_path):
    sample['img_path'][3] = str(tmp_path / 'small.png')
    Image.new('RGB', (8, 8)).save(sample['img_path'][3])
    with pytest.raises(ValueError, match=r'small.png.*\(8, 8\).*\(80, 45\)'):
        LoadMultiViewImages()(sample)


def test_a_bad_input_size_is_refused():
    with pytest.raises(ValueError, match='input_size'):
        AugmentMultiViewImages((0, 64))


@pytest.mark.parametrize('scale', [0.8, 0.5, 1.25])
def test_a_resize_is_bilinear_between_four_neighbours(scale):
    """Half-pixel centres, no filter in front; within rounding."""
    height, width = 40, 80
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (height, width, 3), np.uint8)
    results = dict(
        img=[Image.fromarray(image)],
        adjacent_img=[[Image.fromarray(image[::-1])]],
        img_shape=(height, width),
        img_aug_mat=np.eye(4)[None])
    results = ResizeMultiViewImages(scale)(results)
    assert results['img_shape'] == (int(height * scale), int(width * scale))
    np.testing.assert_array_equal(results['img_aug_mat'],
                                  np.diag([scale, scale, 1, 1])[None])
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    expected = F.interpolate(
        tensor, size=results['img_shape'], mode='bilinear',
        align_corners=False)[0].permute(1, 2, 0).numpy()
    found = np.asarray(results['img'][0], float)
    assert np.abs(found - expected).max() < 1
    flipped = np.asarray(results['adjacent_img'][0][0], float)
    assert np.abs(flipped - expected[::-1]).max() < 1


def test_a_resize_to_nothing_is_refused():
    with pytest.raises(ValueError, match='scale takes'):
        ResizeMultiViewImages(0)
