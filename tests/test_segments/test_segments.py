from pathlib import Path

import cv2
import numpy as np
import pytest

from radocc_plugin.segments import (
    Felzenszwalb,
    Slic,
    ensure_manifest,
    is_complete,
    map_statistics,
    overlay,
    read_label_map,
    read_manifest,
    segment_path,
    write_label_map,
)


def test_label_map_survives_the_file(tmp_path):
    labels = np.array([[0, 1, 65535], [7, 7, 2]])
    write_label_map(tmp_path / 'a' / 'b.png', labels)
    got = read_label_map(tmp_path / 'a' / 'b.png')
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, labels)
    assert [p.name for p in (tmp_path / 'a').iterdir()] == ['b.png']


@pytest.mark.parametrize(
    'labels,message',
    [
        (np.zeros((2, 2)), 'takes integers of shape'),
        (np.zeros((2, 2, 3), int), 'takes integers of shape'),
        (np.array([[-1, 0]]), 'takes ids 0..65535, got -1..0'),
        (np.array([[65536, 0]]), 'takes ids 0..65535'),
    ],
)
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
        'segments/samples/CAM_FRONT/x.png'
    )
    for outside in ('/abs/x.jpg', '../x.jpg'):
        with pytest.raises(ValueError, match='relative to the data root'):
            segment_path('segments', outside)


@pytest.mark.parametrize('segmenter', (Felzenszwalb(), Slic()))
def test_segments_are_deterministic_and_follow_the_image(image, segmenter):
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


def test_overlay_colours_segments_and_leaves_the_rest(image):
    labels = np.zeros((45, 80), np.int32)  # half the image size
    labels[:, 40:] = 3
    picture = overlay(image, labels)
    assert picture.shape == image.shape and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[:, :70], image[:, :70])
    assert (picture[:, 90:] != image[:, 90:]).any(-1).mean() > 0.9


def test_street_images_have_a_useful_number_of_segments(keyframe):
    assert Felzenszwalb()(keyframe[3]).shape == (225, 400)
    for segmenter in (Felzenszwalb(), Slic()):
        assert 40 <= segmenter(keyframe[3]).max() <= 200


def test_only_whole_files_are_complete(tmp_path):
    path = tmp_path / 'a.png'
    assert not is_complete(path)
    write_label_map(path, np.arange(600).reshape(20, 30))
    assert is_complete(path)
    content = path.read_bytes()
    for damaged in (b'', content[:10], content[:-1], b'x' + content[1:]):
        path.write_bytes(damaged)
        assert not is_complete(path)


def test_statistics_of_a_map():
    labels = np.zeros((10, 10), np.int32)
    labels[0, :4] = 7
    labels[1:3] = 2
    labels[9] = 5
    assert map_statistics(labels) == dict(
        count=3, covered=0.34, smallest=0.04, median=0.1, largest=0.2
    )
    empty = map_statistics(np.zeros((2, 2), np.int32))
    assert empty['count'] == empty['covered'] == empty['largest'] == 0
