"""Sheets, the hook that draws them in a test, and movies of them."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from radocc_plugin import occ3d
from radocc_plugin.registry import HOOKS
from radocc_plugin.rendering import VolumeRenderer
from radocc_plugin.structures import OccData, OccDataSample
from radocc_plugin.visualization import draw_sheet, write_movie
from radocc_plugin.visualization.errors import KIND_COLORS, MISSED
from radocc_plugin.visualization.sheet import render_volumes

CAR = 4


@pytest.fixture(scope='module')
def image_paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    paths = []
    for number, name in enumerate(occ3d.CAMERAS):
        paths.append(str(folder / f'{name}.jpg'))
        Image.new('RGB', (320, 180), (40 * number, 90, 90)).save(paths[-1])
    return paths


@pytest.fixture(scope='module')
def renderer():
    return VolumeRenderer(occ3d.POINT_CLOUD_RANGE, (9, 16), backend='torch')


@pytest.fixture
def sample(image_paths):
    """A street; the prediction misses its only car."""
    truth = torch.full(occ3d.GRID_SHAPE, occ3d.FREE, dtype=torch.uint8)
    truth[80:160, 60:140, :2] = 11
    truth[130:150, 90:110, :2] = occ3d.FREE
    prediction = truth.clone()
    truth[130:150, 90:110, 2:8] = CAR
    forward = torch.tensor([[0.0, 0, 1, 1.5], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])
    turned = []
    for angle in (55, 0, -55, 110, 180, -110):
        c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        turn = torch.eye(4)
        turn[:2, :2] = torch.tensor([[c, -s], [s, c]])
        turned.append((turn @ forward).numpy())
    cam2img = np.array([[160.0, 0, 160], [0, 160, 90], [0, 0, 1]])
    sample = OccDataSample(
        metainfo=dict(
            token='t0',
            scene_name='scene-1',
            label_space=occ3d.OCC3D_NUSCENES,
            cam_names=occ3d.CAMERAS,
            img_path=image_paths,
            ori_shape=(180, 320),
            cam2img=np.stack([cam2img] * 6),
            cam2ego=np.stack(turned),
        )
    )
    masks = {
        f'mask_{name}': torch.ones(truth.shape, dtype=torch.bool) for name in ('camera', 'lidar')
    }
    sample.gt_occ = OccData(semantics=truth, **masks)
    sample.pred_occ = OccData(semantics=prediction)
    return sample


def has_color(picture, color):
    return (picture == np.array(color)).all(-1).sum()


def test_sheet_shows_truth_prediction_and_errors(sample, renderer):
    both = draw_sheet(sample, renderer=renderer)
    height, width, _ = both.shape
    assert both.dtype == np.uint8 and width == 1920
    cards = both[height - 460 :, :400], both[height - 460 :, 1288:1688]
    # the missed car, from above: forward of the centre
    rows, _ = np.nonzero((cards[1] == KIND_COLORS[MISSED]).all(-1))
    assert len(rows) > 20 * 20 * 2 and rows.mean() < 260
    # its rendered class is in the row of the truth, not of the prediction
    blue = (both == occ3d.PALETTE[CAR]).all(-1)[:, 104 + 302 : 104 + 604]
    assert blue[:1000].sum() > 50
    sample.gt_occ.semantics = sample.pred_occ.semantics
    same = draw_sheet(sample, renderer=renderer)
    assert has_color(same[height - 460 :, 1288:1688], KIND_COLORS[MISSED]) == 0
    blue = (same == occ3d.PALETTE[CAR]).all(-1)[:, 104 + 302 : 104 + 604]
    assert blue[:1000].sum() == 0


def test_what_is_outside_of_the_mask_is_no_error(sample, renderer):
    sample.gt_occ.mask_camera[130:150] = False
    judged = {
        mask: has_color(
            draw_sheet(sample, renderer=renderer, mask=mask)[-420:], KIND_COLORS[MISSED]
        )
        for mask in ('camera', 'lidar', 'none')
    }
    # its legend's swatch is left
    assert judged['camera'] == 14**2
    assert judged['lidar'] == judged['none'] > 1000


@pytest.mark.parametrize('missing', ['gt_occ', 'pred_occ'])
def test_sheet_does_without_truth_or_prediction(sample, renderer, missing):
    full = draw_sheet(sample, renderer=renderer)
    delattr(sample, missing)
    part = draw_sheet(sample, renderer=renderer)
    assert part.shape[0] < full.shape[0]


def test_sheet_names_what_a_sample_lacks(sample, renderer):
    with pytest.raises(ValueError, match="takes mask one of .*'radar'"):
        draw_sheet(sample, renderer=renderer, mask='radar')
    del sample.gt_occ.mask_lidar
    with pytest.raises(ValueError, match='needs gt_occ.mask_lidar'):
        draw_sheet(sample, renderer=renderer, mask='lidar')
    del sample.gt_occ, sample.pred_occ
    with pytest.raises(ValueError, match='gt_occ, pred_occ or both'):
        draw_sheet(sample, renderer=renderer)
    with pytest.raises(ValueError, match="metainfo 'img_path'"):
        draw_sheet(
            OccDataSample(metainfo=dict(label_space=occ3d.OCC3D_NUSCENES)), renderer=renderer
        )
    with pytest.raises(ValueError, match='samples with label_space'):
        draw_sheet(OccDataSample(), renderer=renderer)


def test_rendered_depth_of_the_car_is_its_distance(sample, renderer):
    labels = sample.gt_occ.semantics.numpy()
    ((depth, classes),) = render_volumes(renderer, sample, {'truth': labels}).values()
    row, column = 4, 8  # the front camera's centre; the car is at x = 12 m
    assert classes[1, row, column] == CAR
    # camera at x = 1.5 m; a ray ends in the first voxel of the car
    assert 12.0 - 1.5 <= depth[1, row, column] < 12.0 - 1.5 + 0.4


@pytest.mark.parametrize('interval,drawn', [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3])])
def test_hook_draws_one_of_so_many_samples(sample, tmp_path, monkeypatch, interval, drawn):
    from radocc_plugin.visualization import hook as module

    monkeypatch.setattr(
        module,
        'draw_sheet',
        lambda sample, **_: np.full((4, 4, 3), int(sample.token[1:]), np.uint8),
    )
    hook = HOOKS.build(
        dict(type='radocc_plugin.OccVisualizationHook', out_dir=str(tmp_path), interval=interval)
    )
    samples = [
        OccDataSample(
            metainfo=dict(scene_name='s', token=f't{i}', label_space=occ3d.OCC3D_NUSCENES)
        )
        for i in range(5)
    ]
    for _ in range(2):  # a second test begins anew
        hook.before_test_epoch(None)
        for batch, part in enumerate((samples[:2], samples[2:4], samples[4:])):
            hook.after_test_iter(SimpleNamespace(), batch, None, part)
    files = {p.stem: p for p in (tmp_path / 's').iterdir()}
    assert sorted(files) == [f't{i}' for i in drawn]
    for token, path in files.items():
        assert (cv2.imread(str(path)) == int(token[1:])).all()


def test_hook_takes_a_positive_interval():
    with pytest.raises(ValueError, match='interval takes a positive'):
        HOOKS.build(dict(type='radocc_plugin.OccVisualizationHook', out_dir='x', interval=0))


def pictures(number=3):
    for index in range(number):
        picture = np.full((61, 81, 3), 30, np.uint8)
        picture[:, :40] = 60 + 60 * index, 0, 200
        yield picture


@pytest.mark.parametrize('suffix', ['.gif', '.mp4'])
def test_movie_has_every_picture_in_order(tmp_path, suffix):
    path = tmp_path / 'a' / f'scene{suffix}'
    assert write_movie(path, pictures(), fps=2, width=80) == 3
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    video = cv2.VideoCapture(str(path))
    reds = []
    while True:
        there, frame = video.read()
        if not there:
            break
        assert frame.shape == (60, 80, 3)
        reds.append(frame[30, 20, 2])
    np.testing.assert_allclose(reds, [60, 120, 180], atol=12)


def test_movie_that_breaks_off_leaves_no_file(tmp_path):
    def broken():
        yield from pictures(1)
        raise RuntimeError('no second picture')

    for name in ('x.gif', 'x.mp4'):
        with pytest.raises(RuntimeError, match='no second picture'):
            write_movie(tmp_path / name, broken())
    with pytest.raises(ValueError, match='pictures is empty'):
        write_movie(tmp_path / 'x.gif', iter(()))
    with pytest.raises(ValueError, match='takes a suffix'):
        write_movie(tmp_path / 'x.avi', pictures())
    assert not list(tmp_path.iterdir())
