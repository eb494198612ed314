import shutil

import numpy as np
import pytest

from radocc_plugin import fileio
from radocc_plugin.segments import (
    Felzenszwalb,
    RandomSegments,
    SyntheticInstances,
    ensure_manifest,
    segment_path,
    write_label_map,
)
from radocc_plugin.synthetic import generate as write_world


def read_image(path):
    return np.array(fileio.read_image(path))


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp('world')
    write_world(
        root,
        scenes_train=1,
        scenes_val=1,
        frames=1,
        image_size=(160, 90),
        seed=3,
        workers=1,
        progress=False,
    )
    return root


@pytest.fixture
def reference(tmp_path):
    labels = np.zeros((30, 40), np.int32)
    labels[20:] = 1
    labels[4:12, 5:17] = 2
    labels[14, 3] = 3
    ensure_manifest(tmp_path, Felzenszwalb().settings)
    for name in ('a', 'b'):
        write_label_map(segment_path(tmp_path, f'{name}.jpg'), labels)
    return tmp_path, labels


def areas(labels):
    return sorted(np.unique(labels[labels > 0], return_counts=True)[1])


def test_random_segments_have_equal_sizes_elsewhere(reference):
    root, labels = reference
    moved = RandomSegments(str(root))(None, 'a.jpg')
    assert areas(moved) == areas(labels)
    # chance level: two masks of 96 of 1200 pixels that are independent
    object_ = moved == np.argsort(np.bincount(moved.ravel())[1:])[1] + 1
    assert (object_ & (labels == 2)).sum() < 0.5 * (labels == 2).sum()


def test_seed_and_image_decide_the_places(reference):
    root, _ = reference
    segmenter = RandomSegments(str(root))
    first = segmenter(None, 'a.jpg')
    np.testing.assert_array_equal(first, segmenter(None, 'a.jpg'))
    assert (first != segmenter(None, 'b.jpg')).any()
    assert (first != RandomSegments(str(root), seed=1)(None, 'a.jpg')).any()
    settings = segmenter.settings
    assert settings['reference'] == Felzenszwalb().settings


def test_random_segments_of_nothing_are_an_error(tmp_path):
    with pytest.raises(ValueError, match='manifest.json: missing'):
        RandomSegments(str(tmp_path)).settings


def test_true_segments_separate_what_rays_hit(world):
    """Two pixels of one object share an id, of two objects never."""
    from radocc_plugin.segments.controls import _scene

    segmenter = SyntheticInstances(str(world), min_area=1)
    pairs = 0
    for path in sorted((world / 'samples').glob('CAM_*/*.jpg')):
        relative = str(path.relative_to(world))
        labels = segmenter(read_image(path), relative)
        name, channel, stamp = path.stem.split('__')
        scene = _scene(str(world), name)
        hits = scene.picture(channel, scene.time(int(stamp))).hits
        instance = hits.instance.reshape(labels.shape)
        on_object = instance >= 0
        table = np.unique(np.stack([instance[on_object], labels[on_object]]), axis=1)
        assert len(np.unique(table[0])) == table.shape[1]
        assert len(np.unique(table[1])) == table.shape[1]
        assert not set(table[1]) & set(np.unique(labels[~on_object]))
        assert ((labels == 0) == np.isinf(hits.distance).reshape(labels.shape)).all()
        pairs += table.shape[1]
    assert pairs > 20


def test_images_of_another_world_are_refused(world, tmp_path):
    segmenter = SyntheticInstances(str(world))
    first, second = sorted((world / 'samples/CAM_FRONT').glob('*.jpg'))
    relative = str(first.relative_to(world))
    with pytest.raises(ValueError, match=f'{first.name} is not what this'):
        segmenter(read_image(second), relative)
    with pytest.raises(ValueError, match='no image of the synthetic world'):
        segmenter(read_image(first), 'samples/CAM_FRONT/n015.jpg')
    with pytest.raises(ValueError, match='create_synthetic'):
        SyntheticInstances(str(tmp_path)).settings
    shutil.copy(world / 'synthetic_settings.json', tmp_path)
    assert SyntheticInstances(str(tmp_path)).settings == segmenter.settings
