import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from PIL import Image

from radocc_plugin import occ3d
from radocc_plugin.datasets import (
    AugmentBEV,
    AugmentMultiViewImages,
    LoadMultiViewImages,
    LoadOcc3D,
    LoadSegments,
)
from radocc_plugin.datasets.transforms import labels as labels_module
from radocc_plugin.label_space import UNLABELLED
from radocc_plugin.geometry import Cameras, draw_rays
from radocc_plugin.segments import read_label_map, write_label_map


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


def test_a_frame_without_labels_has_voxels_that_no_loss_counts(sample):
    occ = LoadOcc3D()(dict(sample, labelled=False))['gt_occ']
    assert (occ['semantics'] == UNLABELLED).all()
    assert not occ['mask_camera'].any() and not occ['mask_lidar'].any()


def test_a_range_crops_labels_and_masks(make_dataset, tiny_infos):
    near = (-20.0, -20.0, -1.0, 20.0, 20.0, 5.4)
    dataset = make_dataset(tiny_infos, point_cloud_range=near)
    assert dataset.metainfo['point_cloud_range'] == near
    sample = dataset.get_data_info(0)
    occ = LoadOcc3D()(sample)['gt_occ']
    stored = np.load(sample['occ_path'])
    for name, volume in occ.items():
        assert volume.shape == sample['label_space'].shape == (100, 100, 16)
        np.testing.assert_array_equal(volume, stored[name][50:150, 50:150])
    flipped = AugmentBEV(1.0, 1.0)(sample)['gt_occ']['semantics']
    np.testing.assert_array_equal(flipped, stored['semantics'][50:150, 50:150][::-1, ::-1])
    with pytest.raises(ValueError, match='point_cloud_range .*-20.1'):
        make_dataset(tiny_infos, point_cloud_range=(-20.1, *near[1:]))


def test_a_range_off_the_middle_is_not_mirrored(make_dataset, tiny_infos):
    ahead = (0.0, -20.0, -1.0, 40.0, 20.0, 5.4)
    sample = make_dataset(tiny_infos, point_cloud_range=ahead).get_data_info(0)
    sample = LoadOcc3D()(sample)
    AugmentBEV(flip_y_prob=1.0)(dict(sample))
    with pytest.raises(ValueError, match='flip_x_prob .* from 0 to 40 m'):
        AugmentBEV(flip_x_prob=0.5)(sample)


GRID = occ3d.GRID_SHAPE


@pytest.mark.parametrize(
    'changes, names',
    (
        (dict(semantics=np.full(GRID, 255, np.uint8)), 'semantics.*255'),
        (dict(semantics=np.full(GRID, -1, np.int8)), 'semantics.*-1'),
        (dict(semantics=np.zeros((200, 200, 8), np.uint8)), r'semantics.*\(200, 200, 8\)'),
        (dict(mask_camera=np.zeros(GRID)), 'mask_camera.*float64'),
        (dict(mask_lidar=None), 'mask_lidar'),
    ),
)
def test_labels_that_do_not_fit_name_file_and_field(sample, tmp_path, changes, names):
    path = tmp_path / 'labels.npz'
    np.savez(path, **_labels(**changes))
    sample['occ_path'] = str(path)
    with pytest.raises(ValueError, match=names) as error:
        LoadOcc3D()(sample)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    'damage', ('missing', 'empty', 'text', 'truncated', 'flipped', 'pickled', 'npy')
)
def test_corrupt_labels_name_the_file(sample, tmp_path, damage):
    path = tmp_path / 'labels.npz'
    content = bytearray(open(sample['occ_path'], 'rb').read())
    if damage == 'flipped':
        content[len(content) // 3] ^= 0xFF
    contents = dict(
        empty=b'', text=b'not an archive', truncated=content[: len(content) // 2], flipped=content
    )
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
    np.testing.assert_array_equal(segments, np.tile(np.arange(45 * 80).reshape(45, 80), (6, 1, 1)))


def test_resized_segments_hold_the_id_at_each_new_pixel_centre(sample):
    segments = LoadSegments(size=(9, 16))(sample)['segments']
    ids = np.arange(45 * 80).reshape(45, 80)
    np.testing.assert_array_equal(segments[0], ids[2::5, 2::5])


def test_missing_segments_name_the_file_and_the_command(sample):
    with pytest.raises(
        ValueError,
        match=r'other/samples/CAM_FRONT_LEFT/token0.png.*'
        r'tools/generate_segments.py',
    ):
        LoadSegments('other')(sample)


def test_segments_of_another_format_are_named(sample, tmp_path):
    path = tmp_path / 'samples/CAM_FRONT_LEFT/token0.png'
    path.parent.mkdir(parents=True)
    Image.new('RGB', (80, 45)).save(path)
    with pytest.raises(ValueError, match='token0.png'):
        LoadSegments(str(tmp_path))(sample)


def test_segments_do_not_follow_the_augmented_images(sample):
    """Rays start from the raw cameras, and so do their segments."""
    plain = LoadSegments(size=(9, 16))(dict(sample))['segments']
    pipeline = Compose(
        [
            LoadMultiViewImages(),
            AugmentMultiViewImages(
                (32, 64), resize=(-0.06, 0.11), flip_prob=1.0, rotate=(-5.4, 5.4)
            ),
            LoadOcc3D(),
            AugmentBEV(flip_x_prob=1.0, flip_y_prob=1.0),
            LoadSegments(size=(9, 16)),
        ]
    )
    np.testing.assert_array_equal(pipeline(sample)['segments'], plain)


@pytest.mark.parametrize('size', (None, (20, 30)))
def test_every_ray_gets_the_segment_of_its_raw_pixel(sample, size):
    """Ids are pixel indices here, so they tell where a ray looked."""
    sample = LoadSegments(size=size)(LoadMultiViewImages()(sample))
    ids = torch.from_numpy(sample['segments'])[None]
    cam2img = torch.from_numpy(sample['cam2img']).float()
    cam2ego = torch.from_numpy(sample['cam2ego']).float()
    cameras = Cameras(cam2img[None], cam2ego[None], torch.eye(4)[None], sample['ori_shape'])
    rays = draw_rays(cameras, (13, 22), max_rays=200, generator=torch.Generator().manual_seed(0))
    points = torch.einsum('rij,ri->rj', cam2ego[rays.camera, :3, :3], rays.directions)
    pixel = torch.einsum('rij,rj->ri', cam2img[rays.camera], points)[:, :2]
    column, row = pixel.numpy().T
    found = rays.gather_maps(ids).numpy()
    # a resized map is exact to half a pixel of its own
    slack = np.array([0.5, 0.5]) + (
        0 if size is None else np.array([45 / size[0], 80 / size[1]]) / 2
    )
    assert (np.abs(found // 80 + 0.5 - row) <= slack[0] + 1e-3).all()
    assert (np.abs(found % 80 + 0.5 - column) <= slack[1] + 1e-3).all()
    assert len(np.unique(found)) > 100


def test_missing_segments_are_dropped_by_option_and_counted(sample, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(labels_module, 'print_log', lambda text, **kwargs: lines.append(text))
    kept = read_label_map(sample['data_root'] + '/segments/samples/CAM_BACK/token0.png')
    write_label_map(tmp_path / 'samples/CAM_BACK/token0.png', kept)
    load = LoadSegments(str(tmp_path), size=(9, 16), missing='drop')
    for _ in range(3):
        segments = load(dict(sample))['segments']
    back = sample['cam_names'].index('CAM_BACK')
    assert segments[back].any()
    assert not np.delete(segments, back, axis=0).any()
    assert load.num_missing == 15 and load.num_images == 18
    first, tenth = lines
    assert '1 of 1 images' in first and 'generate_segments.py' in first
    assert '10 of ' in tenth


def test_dropping_needs_a_size_and_damaged_maps_are_never_dropped(sample, tmp_path):
    with pytest.raises(ValueError, match="missing='drop' takes a size"):
        LoadSegments(missing='drop')
    with pytest.raises(ValueError, match="error or drop, got 'skip'"):
        LoadSegments(missing='skip')
    path = tmp_path / 'samples/CAM_FRONT_LEFT/token0.png'
    path.parent.mkdir(parents=True)
    path.write_bytes(b'half a file')
    with pytest.raises(ValueError, match='token0.png: not a readable PNG'):
        LoadSegments(str(tmp_path), size=(9, 16), missing='drop')(sample)


def test_a_map_of_other_proportions_is_no_map_of_the_image(sample, tmp_path):
    write_label_map(tmp_path / 'samples/CAM_FRONT_LEFT/token0.png', np.ones((45, 60), int))
    with pytest.raises(ValueError, match='token0.png: a map of 45 x 60'):
        LoadSegments(str(tmp_path))(LoadMultiViewImages()(sample))
