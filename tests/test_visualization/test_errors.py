import numpy as np
import pytest

from radocc_plugin.label_space import UNLABELLED
from radocc_plugin.occ3d import FREE, OCC3D_NUSCENES
from radocc_plugin.visualization import draw_errors, error_kinds
from radocc_plugin.visualization.errors import (
    HALLUCINATED,
    KIND_COLORS,
    MISSED,
    NOT_JUDGED_COLOR,
    RIGHT,
    WRONG_CLASS,
    count_kinds,
)
from radocc_plugin.visualization.voxels import EMPTY


def test_every_pair_of_labels_has_its_kind():
    """Against the definition, voxel by voxel."""
    rng = np.random.default_rng(0)
    labels = np.array((0, 4, 11, FREE, FREE, UNLABELLED), np.uint8)
    truth = rng.choice(labels, (8, 8, 4))
    prediction = rng.choice(labels[:5], (8, 8, 4))
    mask = rng.random((8, 8, 4)) < 0.7
    kinds = error_kinds(truth, prediction, mask, free=FREE)
    assert set(np.unique(kinds)) == {0, 1, 2, 3, EMPTY}
    for cell in np.ndindex(truth.shape):
        a, b = truth[cell], prediction[cell]
        if not mask[cell] or a == UNLABELLED or a == b == FREE:
            want = EMPTY
        elif a == FREE:
            want = HALLUCINATED
        elif b == FREE:
            want = MISSED
        else:
            want = RIGHT if a == b else WRONG_CLASS
        assert kinds[cell] == want
    assert sum(count_kinds(kinds)) == (kinds != EMPTY).sum()


def test_shapes_that_differ_are_named():
    volume = np.zeros((4, 4, 4), np.uint8)
    with pytest.raises(ValueError, match=r'mask has shape \(2, 2, 2\)'):
        error_kinds(volume, volume, np.ones((2, 2, 2)), free=FREE)
    with pytest.raises(ValueError, match='prediction has shape'):
        error_kinds(volume, volume[:2], free=FREE)


def test_a_column_from_above_has_the_colour_of_its_errors():
    kinds = np.full((200, 200, 16), EMPTY, np.uint8)
    kinds[150, 120, :2], kinds[150, 120, 2] = MISSED, HALLUCINATED
    kinds[150, 121, :3], kinds[150, 121, 3] = RIGHT, WRONG_CLASS
    kinds[150, 122] = RIGHT
    mask = np.ones(kinds.shape, bool)
    mask[:100] = False
    picture = draw_errors(kinds, OCC3D_NUSCENES, 'bev', size=(200, 200), mask=mask, ego=False)

    def at(x, y):
        return picture[199 - x, 199 - y]

    np.testing.assert_array_equal(at(150, 120), KIND_COLORS[MISSED])
    np.testing.assert_array_equal(at(150, 122), KIND_COLORS[RIGHT])
    # one of four is wrong: between the two colours
    low, high = np.sort(KIND_COLORS[[RIGHT, WRONG_CLASS]], 0)
    weak = at(150, 121)
    assert (weak >= low - 1).all() and (weak <= high + 1).all()
    assert (weak != KIND_COLORS[WRONG_CLASS]).any()
    np.testing.assert_array_equal(at(50, 50), NOT_JUDGED_COLOR)


@pytest.mark.parametrize('kind', [WRONG_CLASS, MISSED, HALLUCINATED])
def test_errors_are_seen_in_perspective(kind):
    kinds = np.full((200, 200, 16), EMPTY, np.uint8)
    kinds[140:150, 90:110, :6] = kind
    picture = draw_errors(kinds, OCC3D_NUSCENES, size=(200, 150), ego=False).astype(float)
    color = KIND_COLORS[kind]
    cosine = picture @ color / np.linalg.norm(picture, axis=-1) / (np.linalg.norm(color))
    assert (cosine > 0.99).sum() > 30
