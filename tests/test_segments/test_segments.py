import importlib.util
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from radocc_plugin.datasets.info_file import save_infos
from radocc_plugin.segments import (SEGMENTERS, Felzenszwalb, Slic,
                                    ensure_manifest, overlay, read_label_map,
                                    read_manifest, segment_path,
                                    write_label_map)

ROOT = Path(__file__).resolve().parents[2]
KEYFRAME = Path(os.environ.get('RADOCC_SHARED',
                               ROOT.parent / 'shared')) / 'data/nuscenes_frame'


@pytest.fixture
def image():
    """Two grey halves and a red square, with a little noise."""
    picture = np.full((90, 160, 3), 60, np.uint8)
    picture[:, 80:] = 200
    picture[30:60, 20:50] = (220, 30, 30)
    noise = np.random.default_rng(0).integers(-4, 5, picture.shape)
    return (picture + noise).astype(np.uint8)


@pytest.fixture
def dataset(tmp_path, image):
    """An info file of two frames with two cameras, and its images."""
    infos = []
    for frame in range(2):
        cameras = {}
        for camera in ('CAM_FRONT', 'CAM_BACK'):
            path = f'samples/{camera}/{frame}.jpg'
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / path), image)
            cameras[camera] = dict(img_path=path)
        infos.append(dict(images=cameras))
    save_infos(dict(metainfo={}, data_list=infos), str(tmp_path / 'infos.pkl'))
    return tmp_path


@pytest.fixture
def generate(dataset):
    spec = importlib.util.spec_from_file_location(
        'generate_segments', ROOT / 'tools' / 'generate_segments.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*extra):
        # one worker process is enough for four images
        module.main([
            '--ann-file', str(dataset / 'infos.pkl'), '--data-root',
            str(dataset), '--out', str(dataset / 'segments'), '--workers',
            '1', *extra
        ])

    # the tool is no importable module, so its workers are run in this process
    module.Pool = FakePool
    return run


class FakePool:

    def __init__(self, *args):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass

    def imap_unordered(self, function, items, chunksize):
        return map(function, items)


def test_label_map_survives_the_file(tmp_path):
    labels = np.array([[0, 1, 65535], [7, 7, 2]])
    write_label_map(tmp_path / 'a' / 'b.png', labels)
    got = read_label_map(tmp_path / 'a' / 'b.png')
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, labels)
    assert [p.name for p in (tmp_path / 'a').iterdir()] == ['b.png']


@pytest.mark.parametrize('labels,message', [
    (np.zeros((2, 2)), 'takes integers of shape'),
    (np.zeros((2, 2, 3), int), 'takes integers of shape'),
    (np.array([[-1, 0]]), 'takes ids 0..65535, got -1..0'),
    (np.array([[65536, 0]]), 'takes ids 0..65535'),
])
def test_wrong_labels_are_not_written(tmp_path, labels, message):
    with pytest.raises(ValueError, match=message):
        write_label_map(tmp_path / 'x.png', labels)
    assert not (tmp_path / 'x.png').exists()


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(ValueError, match='a.png: .*generate_segments.py'):
        read_label_map(tmp_path / 'a.png')
    for content in (b'', b'\x89PNG truncated'):
        (tmp_path / 'b.png').write_bytes(content)
        with pytest.raises(ValueError, match='b.png: not a readable PNG'):
            read_label_map(tmp_path / 'b.png')
    cv2.imwrite(str(tmp_path / 'c.png'), np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match='c.png: takes a uint16 PNG'):
        read_label_map(tmp_path / 'c.png')


def test_path_mirrors_the_image():
    assert segment_path('segments', 'samples/CAM_FRONT/x.jpg') == Path(
        'segments/samples/CAM_FRONT/x.png')
    for outside in ('/abs/x.jpg', '../x.jpg'):
        with pytest.raises(ValueError, match='relative to the data root'):
            segment_path('segments', outside)


@pytest.mark.parametrize('method', sorted(SEGMENTERS))
def test_segments_are_deterministic_and_follow_the_image(image, method):
    segmenter = SEGMENTERS[method]()
    labels = segmenter(image)
    np.testing.assert_array_equal(labels, segmenter(image))
    assert labels.dtype == np.uint16 and labels.shape == (90, 160)
    ids = np.unique(labels[labels > 0])
    np.testing.assert_array_equal(ids, np.arange(1, len(ids) + 1))
    halves = set(labels[:, 5].tolist()), set(labels[:, 150].tolist())
    assert not (halves[0] & halves[1]) - {0}


def test_felzenszwalb_finds_the_object(image):
    labels = Felzenszwalb()(image)
    square = labels[32:58, 22:48]
    assert len(np.unique(square)) == 1
    assert 0.8 < (labels == square[0, 0]).sum() / 30**2 < 1.3


def test_large_images_are_segmented_at_the_set_width():
    big = np.zeros((450, 800, 3), np.uint8)
    assert Felzenszwalb(width=400)(big).shape == (225, 400)


def test_no_segment_is_smaller_than_the_minimum(image):
    small = np.bincount(Slic(min_area=1)(image).ravel())[1:]
    assert small.min() < 97 < small.max()
    kept = np.bincount(Slic(min_area=97)(image).ravel())
    assert kept[1:].min() >= 97
    assert kept[0] == small[small < 97].sum()


def test_wrong_settings_and_images_are_errors():
    with pytest.raises(ValueError, match='scale takes a positive number'):
        Felzenszwalb(scale=0)
    with pytest.raises(ValueError, match='image takes uint8 RGB'):
        Felzenszwalb()(np.zeros((4, 4), np.uint8))


def test_mixing_settings_in_a_folder_is_an_error(tmp_path):
    ensure_manifest(tmp_path, Felzenszwalb().settings)
    ensure_manifest(tmp_path, Felzenszwalb().settings)
    assert read_manifest(tmp_path)['settings']['method'] == 'felzenszwalb'
    with pytest.raises(ValueError, match='scale: 200.0 there, 300.0 asked'):
        ensure_manifest(tmp_path, Felzenszwalb(scale=300.0).settings)


def test_maps_without_a_manifest_are_an_error(tmp_path):
    write_label_map(tmp_path / 'a.png', np.zeros((2, 2), int))
    with pytest.raises(ValueError, match='without a manifest.json'):
        ensure_manifest(tmp_path, Slic().settings)


def test_edited_manifest_is_an_error(tmp_path):
    ensure_manifest(tmp_path, Slic().settings)
    path = tmp_path / 'manifest.json'
    path.write_text(path.read_text().replace('slic', 'sam'))
    with pytest.raises(ValueError, match='manifest.json: hash'):
        read_manifest(tmp_path)


def test_tool_writes_every_camera_and_resumes(dataset, generate, capsys):
    generate()
    maps = sorted((dataset / 'segments').rglob('*.png'))
    assert len(maps) == 4
    before = {m: m.read_bytes() for m in maps}
    maps[0].unlink()
    maps[1].write_bytes(b'kept as it is')
    generate()
    assert '4 images, 3 already done' in capsys.readouterr().out
    assert maps[0].read_bytes() == before[maps[0]]
    assert maps[1].read_bytes() == b'kept as it is'


def test_tool_refuses_other_settings(generate):
    generate()
    with pytest.raises(ValueError, match='other settings'):
        generate('--setting', 'scale=50')
    with pytest.raises(ValueError, match='takes width, min_area, scale'):
        generate('--setting', 'size=50')
    with pytest.raises(ValueError, match='width takes a number of type int'):
        generate('--setting', 'width=wide')


def test_tool_names_a_missing_image(dataset, generate):
    (dataset / 'samples/CAM_BACK/1.jpg').unlink()
    with pytest.raises(ValueError, match='CAM_BACK/1.jpg: image is missing'):
        generate()


def test_overlay_colours_segments_and_leaves_the_rest(image):
    labels = np.zeros((45, 80), np.int32)  # half the image size
    labels[:, 40:] = 3
    picture = overlay(image, labels)
    assert picture.shape == image.shape and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[:, :70], image[:, :70])
    assert (picture[:, 90:] != image[:, 90:]).any(-1).mean() > 0.9


@pytest.mark.skipif(not KEYFRAME.is_dir(), reason=f'{KEYFRAME} is not there')
def test_street_images_have_a_useful_number_of_segments():
    front, = KEYFRAME.glob('*__CAM_FRONT__*.jpg')
    picture = cv2.cvtColor(cv2.imread(str(front)), cv2.COLOR_BGR2RGB)
    assert Felzenszwalb()(picture).shape == (225, 400)
    for segmenter in (Felzenszwalb(), Slic()):
        assert 40 <= segmenter(picture).max() <= 200
