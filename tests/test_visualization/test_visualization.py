import cv2
import numpy as np
import pytest

from radocc_plugin.occ3d import CAMERAS, FREE, OCC3D_NUSCENES, PALETTE
from radocc_plugin.visualization import (
    colorize_depth,
    colorize_semantics,
    draw_cameras,
    draw_occupancy,
    frame_page,
    legend,
    rendering_page,
    save_picture,
)

CAR, BUS = 4, 3
BACKGROUND = (244, 246, 249)
SPACE = OCC3D_NUSCENES
KNOWN = dict(space=SPACE, cameras=CAMERAS)


@pytest.fixture
def street():
    """Ground, and a car ahead of the ego vehicle on its left."""
    labels = np.full((200, 200, 16), FREE, np.uint8)
    labels[:, :, :2] = 11
    labels[150:165, 120:130, 2:6] = CAR
    return labels


def is_hue(picture, label):
    """Pixels of the hue of a class, whatever their shade."""
    color = np.array(PALETTE[label], float)
    norm = np.linalg.norm(picture.astype(float), axis=-1).clip(1)
    cosine = picture @ color / norm / np.linalg.norm(color)
    return cosine > 0.995


@pytest.mark.parametrize('view', ['behind', 'bev'])
def test_left_is_left_and_ahead_is_up(street, view):
    picture = draw_occupancy(street, SPACE, view, size=(400, 300))
    assert picture.shape == (300, 400, 3) and picture.dtype == np.uint8
    rows, columns = np.nonzero(is_hue(picture, CAR))
    assert len(rows) > 30
    assert columns.mean() < 200 and rows.mean() < 150


def test_nearer_voxels_hide_those_behind_them(street):
    # a wall ahead of the bus hides nothing of it, one behind it everything:
    # the eye is behind and above, seen at about 40 degrees
    street[60:66, 80:120, 2:8] = BUS
    ahead, behind = street.copy(), street.copy()
    ahead[68:71, 60:140, 2:16] = 15
    behind[55:58, 60:140, 2:16] = 15
    seen = is_hue(draw_occupancy(street, SPACE, ego=False), BUS).sum()
    ahead, behind = (
        is_hue(draw_occupancy(labels, SPACE, ego=False), BUS).sum() for labels in (ahead, behind)
    )
    assert ahead > 0.9 * seen
    assert behind == 0 < seen


def test_bev_shows_the_topmost_class(street):
    street[150:165, 120:130, 9] = BUS
    picture = draw_occupancy(street, SPACE, 'bev', size=(200, 200), ego=False)
    # row of x = 157 counted from the front, column of y = 125 from the left
    assert is_hue(picture, BUS)[199 - 157, 199 - 125]
    assert not is_hue(picture, CAR).any()


def test_unobserved_voxels_are_dimmed_or_hidden(street):
    visible = np.zeros(street.shape, bool)
    options = dict(visible=visible, ego=False, size=(200, 150))
    hidden = draw_occupancy(street, SPACE, unobserved='hide', **options)
    assert (hidden == BACKGROUND).all()
    dim = draw_occupancy(street, SPACE, unobserved='dim', **options)
    assert not is_hue(dim, CAR).any()
    assert (dim != BACKGROUND).any()


def test_ego_vehicle_can_be_left_out(street):
    with_ego = draw_occupancy(street, SPACE)
    without = draw_occupancy(street, SPACE, ego=False)
    assert (with_ego != without).any()


@pytest.mark.parametrize(
    'kwargs,message',
    [
        (dict(semantics=np.zeros((4, 4))), 'semantics takes shape'),
        (dict(semantics=np.full((4, 4, 4), 18)), 'takes labels 0..17, got 18'),
        (dict(view='side'), "got 'side'"),
        (dict(unobserved='red'), "got 'red'"),
        (dict(visible=np.ones((2, 2, 2))), 'visible has shape'),
    ],
)
def test_wrong_arguments_are_errors(street, kwargs, message):
    with pytest.raises(ValueError, match=message):
        draw_occupancy(**dict(dict(semantics=street, space=SPACE), **kwargs))


@pytest.fixture
def images():
    """Six images of one colour each."""
    colors = np.arange(6, dtype=np.uint8)[:, None, None, None] * 40
    return np.broadcast_to(colors, (6, 90, 160, 3)).copy()


def test_mosaic_has_the_cameras_in_ring_order(images):
    picture = draw_cameras(images, CAMERAS, width=600)
    assert picture.shape[1] == 600
    height = picture.shape[0]
    for number in range(6):
        row, column = divmod(number, 3)
        y, x = height * (2 * row + 1) // 4, 100 + 200 * column
        assert (picture[y, x] == number * 40).all()


def test_wrong_images_are_errors(images):
    with pytest.raises(ValueError, match='uint8 RGB .* got float64'):
        draw_cameras(images / 255, CAMERAS)
    with pytest.raises(ValueError, match='takes 6 camera names, got 1'):
        draw_cameras(images, ['CAM_FRONT'])


def test_depth_goes_from_red_to_blue_and_unknown_is_dark():
    near, far, unknown = colorize_depth(np.array([[5.0, 45.0, 0.0]]), 50.0)[0]
    assert near[0] > near[2] and far[2] > far[0]
    assert unknown.max() < 50
    np.testing.assert_array_equal(colorize_depth(np.array([[np.nan]]), 50.0)[0, 0], unknown)


def test_growing_returns_keeps_the_nearest():
    depth = np.zeros((5, 7))
    depth[2, 2], depth[2, 4] = 30.0, 10.0
    grown = colorize_depth(depth, 50.0, dot=3)
    plain = colorize_depth(depth, 50.0)
    np.testing.assert_array_equal(grown[2, 3], plain[2, 4])
    np.testing.assert_array_equal(grown[1, 1], plain[2, 2])
    np.testing.assert_array_equal(grown[0, 0], plain[0, 0])


def test_classes_have_their_palette_colour():
    picture = colorize_semantics(np.array([[CAR, FREE, 255]]), SPACE)
    assert tuple(picture[0, 0]) == PALETTE[CAR]
    assert picture[0, 1].min() > 200 and picture[0, 2].max() < 50
    swatches = legend(SPACE, [CAR], width=200)
    assert (swatches == PALETTE[CAR]).all(-1).sum() >= 14**2


def test_frame_page_shows_every_volume(street, images):
    one = frame_page(images, {'ground truth': street}, **KNOWN, title='frame')
    three = frame_page(
        images,
        {'ground truth': street, 'baseline': street, 'RadOcc': street},
        **KNOWN,
        miou={'RadOcc': 31.4},
        visible=np.ones(street.shape, bool),
    )
    assert is_hue(three, CAR).sum() > 2.5 * is_hue(one, CAR).sum()
    with pytest.raises(ValueError, match=r"miou names \['student'\]"):
        frame_page(images, {'RadOcc': street}, **KNOWN, miou={'student': 1.0})
    with pytest.raises(ValueError, match='volumes is empty'):
        frame_page(images, {}, **KNOWN)


def test_rendering_page_has_a_row_a_map(images):
    depth = np.full((6, 45, 80), 20.0)
    classes = np.full((6, 45, 80), CAR)
    page = rendering_page(images, {'teacher': depth}, {'teacher': classes}, **KNOWN)
    # the 6 tiles of 260 pixels are all in the car's colour
    assert (page == PALETTE[CAR]).all(-1).sum() >= len(CAMERAS) * 260 * 140
    with pytest.raises(ValueError, match=r'takes shape \(6, h, w\)'):
        rendering_page(images, {'teacher': depth[:5]}, {}, **KNOWN)


def test_saved_picture_reads_back(tmp_path, images):
    save_picture(tmp_path / 'a' / 'x.png', images[3])
    back = cv2.imread(str(tmp_path / 'a' / 'x.png'))[..., ::-1]
    np.testing.assert_array_equal(back, images[3])
