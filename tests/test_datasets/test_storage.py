"""Files that are not on disk, and images and points that vary."""

from pathlib import Path

import numpy as np
import pytest
from mmcv.transforms import Compose
from mmengine.fileio import LocalBackend, register_backend
from PIL import Image

from radocc_plugin.datasets import (
    LoadLidarPoints,
    LoadMultiViewImages,
    LoadOcc3D,
    LoadSegments,
    PackOccInputs,
)

PREFIX = 'store://'


class Store(LocalBackend):
    """Answers to addresses that no file system knows."""

    root = None
    asked = []

    def get(self, filepath):
        assert filepath.startswith(PREFIX)
        self.asked.append(filepath)
        return super().get(Path(self.root, filepath[len(PREFIX) :]))

    def exists(self, filepath):
        return super().exists(Path(self.root, filepath[len(PREFIX) :]))


register_backend('radocc-store', Store, prefixes='store', force=True)


@pytest.mark.parametrize('backend_args', [None, dict(backend='radocc-store')])
def test_every_file_comes_from_the_storage(
    make_dataset, tiny_infos, tiny_root, monkeypatch, backend_args
):
    monkeypatch.setattr(Store, 'root', str(tiny_root))
    monkeypatch.setattr(Store, 'asked', [])
    pipeline = [
        dict(type='radocc_plugin.LoadMultiViewImages'),
        dict(type='radocc_plugin.LoadLidarPoints', num_sweeps=1),
        dict(type='radocc_plugin.LoadOcc3D'),
        dict(type='radocc_plugin.LoadSegments'),
        dict(type='radocc_plugin.PackOccInputs'),
    ]
    local = make_dataset(tiny_infos, pipeline=pipeline)[0]
    dataset = make_dataset(tiny_infos, pipeline=pipeline, data_root=PREFIX)
    dataset.backend_args = backend_args
    remote = dataset[0]
    assert len(Store.asked) == 6 + 2 + 1 + 6
    for name, value in local['inputs'].items():
        assert (remote['inputs'][name] == value).all()
    for name in ('semantics', 'mask_camera'):
        assert (
            remote['data_samples'].gt_occ.get(name) == local['data_samples'].gt_occ.get(name)
        ).all()
    assert (remote['data_samples'].segments == local['data_samples'].segments).all()


def test_the_info_file_comes_from_the_storage(make_dataset, tiny_infos, tmp_path, monkeypatch):
    from radocc_plugin.datasets import Occ3DNuScenesDataset

    make_dataset(tiny_infos)
    monkeypatch.setattr(Store, 'root', str(tmp_path))
    monkeypatch.setattr(Store, 'asked', [])
    dataset = Occ3DNuScenesDataset(
        data_root=PREFIX, ann_file='infos.pkl', backend_args=dict(backend='radocc-store')
    )
    assert len(dataset) == 2 and len(Store.asked) == 1


@pytest.mark.parametrize(
    'load, name',
    [(LoadMultiViewImages, 'img_path'), (LoadLidarPoints, 'lidar_path'), (LoadOcc3D, 'occ_path')],
)
def test_what_the_storage_lacks_is_named(sample, monkeypatch, load, name):
    monkeypatch.setattr(Store, 'root', '/nowhere')
    sample['backend_args'] = dict(backend='radocc-store')
    path = f'{PREFIX}missing'
    sample[name] = [path] * 6 if name == 'img_path' else path
    with pytest.raises(ValueError, match=path):
        load()(sample)


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'LA', 'P'])
def test_grey_and_transparent_images_become_rgb(sample, tmp_path, mode):
    pixels = Image.open(sample['img_path'][0])
    path = str(tmp_path / 'image.png')
    pixels.convert(mode).save(path)
    sample['img_path'][0] = path
    image = LoadMultiViewImages()(sample)['img'][0]
    assert image.mode == 'RGB' and image.size == pixels.size
    if mode == 'RGBA':
        np.testing.assert_array_equal(np.asarray(image), np.asarray(pixels))
    if mode == 'L':
        grey = np.asarray(pixels.convert('L'))
        np.testing.assert_array_equal(np.asarray(image)[..., 1], grey)


def test_images_of_other_sizes_are_padded_or_named(sample, tmp_path):
    path = str(tmp_path / 'small.jpg')
    Image.new('RGB', (80, 30), (255, 0, 0)).save(path)
    sample['img_path'][2] = path
    with pytest.raises(
        ValueError,
        match='small.jpg has width and height '
        r'\(80, 30\), .*pad_to',
    ):
        LoadMultiViewImages()(dict(sample))
    padded = LoadMultiViewImages(pad_to=(45, 80))(dict(sample))
    assert {image.size for image in padded['img']} == {(80, 45)}
    with pytest.raises(ValueError, match='has height and width .* more than'):
        LoadMultiViewImages(pad_to=(40, 80))(dict(sample))


def test_fewer_cameras_feed_a_model(make_dataset, tiny_infos):
    cams = ('CAM_BACK', 'CAM_FRONT')
    pipeline = Compose(
        [LoadMultiViewImages(), LoadOcc3D(), LoadSegments(size=(9, 16)), PackOccInputs()]
    )
    packed = pipeline(make_dataset(tiny_infos, cams=cams).get_data_info(0))
    assert packed['inputs']['img'].shape[0] == 2
    assert packed['data_samples'].cam_names == list(cams)
    assert packed['data_samples'].segments.shape == (2, 9, 16)
    with pytest.raises(ValueError, match='CAM_TOP, which sample token0'):
        make_dataset(tiny_infos, cams=('CAM_TOP',)).get_data_info(0)


@pytest.mark.parametrize('columns', [4, 6])
def test_points_of_other_columns(make_dataset, tiny_infos, tmp_path, columns):
    rows = np.random.default_rng(0).uniform(-9, 9, (50, columns))
    rows[:, 3] = np.abs(rows[:, 3])
    path = tmp_path / 'points.bin'
    rows.astype(np.float32).tofile(path)
    lidar = tiny_infos[0]['lidar_points']
    lidar.update(lidar_path=str(path), num_pts_feats=columns)
    sample = make_dataset(tiny_infos).get_data_info(0)
    points = LoadLidarPoints(ego_vehicle=(0, 0, 0, 0))(sample)['points']
    assert points.shape == (50, 5)
    np.testing.assert_allclose(points[:, 3], rows[:, 3], rtol=1e-6)
    assert not points[:, 4].any()
    if columns == 6:  # no other number of columns makes sense of it
        lidar['num_pts_feats'] = 3
        with pytest.raises(ValueError, match='points.bin takes 3 float32'):
            LoadLidarPoints()(make_dataset(tiny_infos).get_data_info(0))


@pytest.mark.parametrize('path', ['../points.bin', '/points.bin', r'..\..\points.bin'])
def test_files_outside_of_the_root_are_refused_unless_allowed(make_dataset, tiny_infos, path):
    tiny_infos[0]['lidar_points']['lidar_path'] = path
    with pytest.raises(ValueError, match='infos.pkl names .*points.bin.* not below .*outside_root'):
        make_dataset(tiny_infos, outside_root=False).get_data_info(0)
    make_dataset(tiny_infos, outside_root=True).get_data_info(0)
