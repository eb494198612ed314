import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.datasets.transforms import PhotoMetricDistortion
from PIL import Image

from radocc_plugin.datasets import AugmentMultiViewImages, LoadMultiViewImages
from radocc_plugin.datasets.info_file import save_infos
from radocc_plugin.datasets.transforms import ResizeMultiViewImages
from radocc_plugin.datasets.transforms.images import (
    augment_image,
    distort_colours,
    image_augmentation_matrix,
)
from radocc_plugin.fileio import read_image
from radocc_plugin.segments.camera_images import CameraImages
from radocc_plugin.visualization import read_images

RANDOM = dict(resize=(-0.2, 0.3), flip_prob=0.5, rotate=(-20, 20))


@pytest.mark.parametrize('flip', (False, True))
@pytest.mark.parametrize('angle', (0, 5.4, -12.0))
@pytest.mark.parametrize(
    'size, crop', (((120, 70), (10, 20, 110, 70)), ((160, 90), (40, 26, 140, 90)))
)
def test_the_matrix_says_where_each_pixel_went(size, crop, flip, angle):
    """Images that hold their own coordinates, read after augmentation."""
    height, width = 90, 160
    v, u = np.mgrid[:height, :width].astype(np.float32) + 0.5
    moved_u, moved_v = (
        np.asarray(augment_image(Image.fromarray(ramp), size, crop, flip, angle)) for ramp in (u, v)
    )
    matrix = image_augmentation_matrix((height, width), size, crop, flip, angle)
    rows, columns = np.mgrid[: moved_u.shape[0], : moved_u.shape[1]] + 0.5
    augmented = np.stack([columns, rows, np.ones_like(rows), np.ones_like(rows)], -1)
    expected = augmented @ np.linalg.inv(matrix).T
    # away from borders, where bicubic weights come in, and black corners
    inside = (
        (moved_u > 0)
        & (expected[..., 0] > 6)
        & (expected[..., 0] < width - 6)
        & (expected[..., 1] > 6)
        & (expected[..., 1] < height - 6)
    )
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
    np.testing.assert_allclose(sample['img_aug_mat'], np.tile(expected, (6, 1, 1)))
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
        img_aug_mat=np.eye(4)[None],
    )
    results = ResizeMultiViewImages(scale)(results)
    assert results['img_shape'] == (int(height * scale), int(width * scale))
    np.testing.assert_array_equal(results['img_aug_mat'], np.diag([scale, scale, 1, 1])[None])
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    expected = (
        F.interpolate(tensor, size=results['img_shape'], mode='bilinear', align_corners=False)[0]
        .permute(1, 2, 0)
        .numpy()
    )
    found = np.asarray(results['img'][0], float)
    assert np.abs(found - expected).max() < 1
    flipped = np.asarray(results['adjacent_img'][0][0], float)
    assert np.abs(flipped - expected[::-1]).max() < 1


def test_a_resize_to_nothing_is_refused():
    with pytest.raises(ValueError, match='scale takes'):
        ResizeMultiViewImages(0)


def test_orientation_tags_turn_neither_images_nor_segments(tmp_path):
    """Calibration and segment maps know stored pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    tags = Image.Exif()
    tags[0x0112] = 3  # upside down
    plain, tagged = tmp_path / 'plain.png', tmp_path / 'tagged.png'
    Image.fromarray(pixels).save(plain)
    Image.fromarray(pixels).save(tagged, exif=tags)
    assert Image.open(tagged).getexif()[0x0112] == 3
    save_infos(
        dict(data_list=[dict(images=dict(CAM_FRONT=dict(img_path='tagged.png')))]),
        str(tmp_path / 'infos.pkl'),
    )
    segmented = CameraImages(str(tmp_path / 'infos.pkl'), str(tmp_path), str(tmp_path / 'x'))[0]
    loaded = LoadMultiViewImages()(dict(img_path=[str(tagged)]))
    for image in (segmented['inputs'], loaded['img'][0], read_images([tagged])[0]):
        np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize('suffix', ('png', 'tiff'))
def test_grey_images_of_16_bits_keep_their_shades(tmp_path, suffix):
    values = np.arange(0, 1 << 16, 257, dtype=np.uint16).reshape(16, 16)
    path = tmp_path / f'grey.{suffix}'
    Image.fromarray(values).save(path)
    want = np.repeat((values // 256)[..., None], 3, 2)
    np.testing.assert_array_equal(np.asarray(read_image(path)), want)


def test_images_of_unknown_range_are_refused(tmp_path):
    path = tmp_path / 'float.tiff'
    Image.fromarray(np.zeros((4, 4), np.float32)).save(path)
    with pytest.raises(ValueError, match='float.tiff.*takes 8 or 16 bits'):
        read_image(path)


@pytest.mark.parametrize('seed', range(4))
def test_resizing_the_kept_part_is_resizing_all(seed):
    """Crops inside, across the edges, and outside of the image."""
    generator = np.random.default_rng(seed)
    blurred = Image.fromarray(generator.integers(0, 256, (18, 32, 3), np.uint8)).resize((320, 180))
    np.random.seed(seed)
    augment = AugmentMultiViewImages((64, 176), resize=(-0.3, 0.5), crop_height=(0.0, 0.5))
    draws = [augment._draw((180, 320)) for _ in range(8)]
    draws.append(((100, 60), (-20, 10, 90, 80), False, 0.0))
    draws.append(((100, 60), (200, 10, 220, 30), False, 0.0))
    for draw in draws:
        parts, whole = (
            np.asarray(augment_image(blurred, *draw, resize_all=resize_all)).astype(int)
            for resize_all in (False, True)
        )
        assert parts.shape == whole.shape
        difference = np.abs(parts - whole)
        # rounded after each of two passes
        assert difference.max() <= 2 and (difference > 0).mean() < 0.01


@pytest.mark.parametrize('contrast_last', (0, 1))
@pytest.mark.parametrize('flags', itertools.product((0, 1), repeat=5))
def test_colours_are_those_of_mmdet(contrast_last, flags):
    """Whatever is drawn; dark pixels and greys too."""
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (40, 50, 3), np.uint8)
    image[:20] //= 8
    image[5:9] = image[5:9, :, :1]
    mmdet = PhotoMetricDistortion()
    for number in (-1, 1):
        values = (
            25.0 * number,
            1 + 0.4 * number,
            1 + 0.5 * number,
            17.0 * number,
            np.array([1, 2, 0]),
        )
        draws = (contrast_last, *flags, *values)
        mmdet._random_flags = lambda: draws
        want = mmdet.transform(dict(img=image[..., ::-1].copy()))['img']
        want = np.clip(np.round(want[..., ::-1]), 0, 255)
        got = distort_colours(image, *draws).astype(int)
        assert np.abs(got - want).max() <= 1
        assert (got != want).mean() < 1e-3
