import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from radocc_plugin.geometry import Cameras, VoxelGrid, camera_views, draw_rays


def rig(batch=2, flip=True):
    """Two cameras: one looks forward (ego x), one to the left (ego y)."""
    forward = torch.tensor([[0.0, 0, 1, 1.7], [-1, 0, 0, 0.1], [0, -1, 0, 1.5], [0, 0, 0, 1]])
    angle = math.pi / 2
    turn = torch.eye(4)
    turn[:2, :2] = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    cam2ego = torch.stack((forward, turn @ forward)).expand(batch, 2, 4, 4)
    cam2img = torch.tensor([[300.0, 0, 200], [0, 300, 112], [0, 0, 1]])
    bda = torch.eye(4).repeat(batch, 1, 1)
    if flip:
        bda[-1, 1, 1] = -1
    return Cameras(cam2img.expand(batch, 2, 3, 3), cam2ego.contiguous(), bda, (225, 400))


def test_points_on_rays_project_to_their_pixels_and_depths():
    cameras = rig()
    rays = draw_rays(cameras, (9, 16))
    depth = 12.5
    points = rays.origins + depth * rays.directions
    for i in range(0, len(rays), 37):
        b, n = rays.sample[i], rays.camera[i]
        pixels, depths = cameras.project(points[i].expand(len(cameras.cam2img), 1, 3))
        row, column = divmod(int(rays.pixel[i]), 16)
        expected = torch.tensor([(column + 0.5) * 25, (row + 0.5) * 25])
        torch.testing.assert_close(pixels[b, n, 0], expected, rtol=1e-4, atol=1e-2)
        assert float(depths[b, n, 0]) == pytest.approx(depth, rel=1e-5)


def test_flipped_ego_flips_the_rays():
    plain, flipped = rig(1, flip=False), rig(1, flip=True)
    a, b = draw_rays(plain, (4, 6)), draw_rays(flipped, (4, 6))
    mirror = torch.tensor([1.0, -1, 1])
    torch.testing.assert_close(a.directions * mirror, b.directions)
    torch.testing.assert_close(a.origins * mirror, b.origins)


@pytest.mark.parametrize('scale', [1, 3])
def test_maps_are_read_at_the_pixel_of_the_ray(scale):
    cameras = rig()
    generator = torch.Generator().manual_seed(0)
    rays = draw_rays(cameras, (3, 4), max_rays=10, generator=generator)
    maps = torch.arange(2 * 2 * 12).view(2, 2, 3, 4)
    maps = maps.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    expected = (rays.sample * 2 + rays.camera) * 12 + rays.pixel
    assert rays.gather_maps(maps).tolist() == expected.tolist()
    with pytest.raises(ValueError, match='maps'):
        rays.gather_maps(maps[0])


def test_missing_calibration_is_named():
    sample = SimpleNamespace(metainfo=dict(cam2img=np.eye(3)[None]))
    with pytest.raises(ValueError, match='cam2ego'):
        Cameras.from_data_samples([sample])


def test_wrong_camera_shape_is_named():
    with pytest.raises(ValueError, match='cam2ego'):
        Cameras(torch.zeros(1, 6, 3, 3), torch.zeros(1, 5, 4, 4), torch.zeros(1, 4, 4), (225, 400))


@pytest.mark.parametrize(
    'arguments, message',
    [
        (((0, 0, 0, 1, 1, 0), (2, 2, 2)), 'point_cloud_range'),
        (((0, 0, 0, 1, 1, 1), (2, 0, 2)), 'shape'),
    ],
)
def test_bad_grids_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        VoxelGrid(*arguments)


def test_grid_centres_index_their_own_cells():
    grid = VoxelGrid.from_voxel_size((-40, -40, -1, 40, 40, 5.4), 0.4)
    assert grid.shape == (200, 200, 16)
    cells, inside = grid.index(grid.centres())
    assert bool(inside.all())
    assert torch.equal(grid.ravel(cells).flatten(), torch.arange(grid.num_voxels))
    with pytest.raises(ValueError, match='voxel_size'):
        VoxelGrid.from_voxel_size((0, 0, 0, 1, 1, 1), 0.3)


RANGE = (-10.0, -20.0, -1.0, 30.0, 20.0, 5.4)


def test_the_view_from_above_is_the_upper_face_of_the_range():
    """Every ray enters the range by its top; the image is a map with the
    vehicle's front up and its left to the left."""
    cameras = camera_views(rig(flip=False), ('above',), RANGE)
    assert cameras.cam2img.shape == (2, 1, 3, 3)
    rays = draw_rays(cameras, (225, 400))
    depth = rays.origins[:, 2] - RANGE[5]
    top = rays.origins + depth[:, None] / -rays.directions[:, 2:] * rays.directions
    top = top.view(2, 225, 400, 3)
    low, high = torch.tensor(RANGE[:3]), torch.tensor(RANGE[3:])
    half = (high - low)[:2] / torch.tensor((225, 400)) / 2
    front_left, back_right = top[0, 0, 0, :2], top[0, -1, -1, :2]
    torch.testing.assert_close(front_left, high[:2] - half)
    torch.testing.assert_close(back_right, low[:2] + half)
    torch.testing.assert_close(top[..., 2], torch.full_like(top[..., 2], RANGE[5]))


def test_elevated_cameras_are_raised_and_look_down():
    plain = rig()
    raised = camera_views(plain, ('elevated',), RANGE)
    torch.testing.assert_close(
        raised.cam2ego[..., :3, 3] - plain.cam2ego[..., :3, 3],
        torch.tensor([0.0, 0, 3]).expand(2, 2, 3),
    )
    before, after = plain.cam2ego[..., :3, 2], raised.cam2ego[..., :3, 2]  # where they look
    torch.testing.assert_close(after[..., 2], torch.full((2, 2), -math.sin(math.radians(20))))
    torch.testing.assert_close(
        (before * after).sum(-1), torch.full((2, 2), math.cos(math.radians(20)))
    )
    rotation = raised.cam2ego[..., :3, :3]
    torch.testing.assert_close(rotation.mT @ rotation, torch.eye(3).expand(2, 2, 3, 3))
    # to the right stays level
    assert rotation[..., 2, 0].abs().max() < 1e-6


def test_views_stand_beside_each_other():
    plain = rig()
    every = camera_views(plain, ('sensor', 'elevated', 'above'), RANGE)
    assert every.cam2img.shape == (2, 5, 3, 3) and every.image_size == plain.image_size
    assert torch.equal(every.cam2ego[:, :2], plain.cam2ego)
    sizes = torch.tensor([[[225, 400], [112, 200]]] * 2)
    other = Cameras(plain.cam2img, plain.cam2ego, plain.bda_mat, sizes)
    views = camera_views(other, ('elevated', 'above'), RANGE)
    assert views.image_sizes[0].tolist() == [[225, 400], [112, 200], [225, 400]]
    for wrong in ((), ('behind',)):
        with pytest.raises(ValueError, match='views take some of'):
            camera_views(plain, wrong, RANGE)
