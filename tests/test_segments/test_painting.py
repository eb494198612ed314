import numpy as np
import pytest

from radocc_plugin.segments import paint_masks, renumber, split_components


def box(rows, columns, shape=(20, 30)):
    mask = np.zeros(shape, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


WALL, WINDOW, DOOR = box((0, 20), (0, 30)), box((2, 6), (3, 9)), box((10, 20), (4, 8))


def test_small_masks_survive_in_large_ones():
    labels = paint_masks([WINDOW, WALL, DOOR], (20, 30))
    assert labels.dtype == np.uint16
    assert np.unique(labels[WINDOW]).tolist() == [2]
    assert np.unique(labels[DOOR]).tolist() == [3]
    assert np.unique(labels[~WINDOW & ~DOOR]).tolist() == [1]


def test_ids_do_not_depend_on_the_order_of_the_masks():
    masks = [WALL, WINDOW, DOOR]
    first = paint_masks(masks, (20, 30))
    for order in ((0, 2, 1), (1, 0, 2), (2, 1, 0)):
        np.testing.assert_array_equal(paint_masks([masks[i] for i in order], (20, 30)), first)


@pytest.mark.parametrize('min_area, kept', ((1, 2), (8, 2), (9, 1), (25, 0)))
def test_the_visible_area_decides_what_is_dropped(min_area, kept):
    # 32 pixels, of which the window of 24 leaves 8
    behind = box((2, 6), (3, 11))
    labels = paint_masks([WINDOW, behind], (20, 30), min_area=min_area)
    assert labels.max() == kept


def test_parts_become_segments_only_by_option():
    apart = WINDOW | DOOR
    assert paint_masks([apart], (20, 30)).max() == 1
    labels = paint_masks([apart], (20, 30), connected_components=True)
    assert np.unique(labels[WINDOW]).tolist() == [1]
    assert np.unique(labels[DOOR]).tolist() == [2]
    labels = paint_masks([apart], (20, 30), connected_components=True, min_area=WINDOW.sum() + 1)
    assert not labels[WINDOW].any() and (labels[DOOR] == 1).all()


def test_no_masks_give_an_empty_map():
    labels = paint_masks([], (4, 5))
    assert labels.shape == (4, 5) and not labels.any()


def test_pixels_that_touch_at_a_corner_are_connected():
    labels = split_components(np.array([[3, 0, 3], [0, 3, 0], [5, 0, 0]]))
    assert len(np.unique(labels[labels > 0])) == 2  # 3 and 5


def test_renumbering_keeps_the_partition():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 40, (30, 40)) * 1000
    ids = renumber(labels)
    assert ((ids == 0) == (labels == 0)).all()
    pairs = np.unique(np.stack([labels.ravel(), ids.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(labels)) == len(np.unique(ids))
    first = [np.flatnonzero(ids == i)[0] for i in range(1, ids.max() + 1)]
    assert first == sorted(first)


def test_wrong_masks_and_too_many_segments_are_errors():
    with pytest.raises(ValueError, match=r'masks take bool of shape \(4, 5\)'):
        paint_masks([np.zeros((4, 5), np.uint8)], (4, 5))
    with pytest.raises(ValueError, match='up to 65535 segments, got 65536'):
        renumber(np.arange(1, 65537).reshape(256, 256))
