"""Geometry of the lift: pixels, depths and voxels belong together."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from radocc_plugin.geometry import Cameras, VoxelGrid
from radocc_plugin.models.bevdet import split_frames
from radocc_plugin.models.lift_splat import (
    LSSViewTransformer,
    LSSViewTransformerBEVStereo,
    ViewGeometry,
)
from radocc_plugin.models.lift_splat.depth import DepthBins, check_stride, depth_loss, one_hot_depth
from radocc_plugin.models.lift_splat.depth_net import DepthNet
from radocc_plugin.models.lift_splat.lift import assign_voxels, make_frustum, plan_lift
from tests.support.models import make_sample

GRID = dict(x=(-40, 40, 0.8), y=(-40, 40, 0.8), z=(-1, 5.4, 0.8), depth=(1, 45, 1))
BINS = DepthBins(*GRID['depth'])
FLIP_X, FLIP_Y = np.diag([-1.0, 1, 1, 1]), np.diag([1.0, -1, 1, 1])


def transformer(**changes) -> LSSViewTransformer:
    torch.manual_seed(0)
    config = dict(grid_config=GRID, in_channels=8, out_channels=4, downsample=8)
    return LSSViewTransformer(**{**config, **changes})


def augmented_sample():
    """A sample whose images are scaled, shifted, rotated and mirrored."""
    sample = make_sample()
    angle = np.deg2rad(5)
    image = np.eye(4)
    image[:2, :2] = 1.1 * np.array(
        [[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    image[:2, 3] = 250, -6
    sample.set_metainfo(dict(img_aug_mat=np.stack([image] * 6), bda_mat=FLIP_X))
    return sample


def test_a_projected_point_is_lifted_to_where_it_was():
    sample = augmented_sample()
    points = torch.tensor([[-12.0, 3, 1], [9, -7, 0.5], [20, 14, 3]])
    cameras = Cameras.from_data_samples([sample])
    pixels, depth = cameras.project(points[None])
    image = torch.as_tensor(sample.img_aug_mat, dtype=torch.float32)
    augmented = pixels[0] @ image[:, :2, :2].mT + image[:, None, :2, 3]
    geometry = ViewGeometry.from_data_samples([sample])
    for camera in range(6):
        frustum = torch.cat([augmented[camera], depth[0, camera, :, None]], -1)
        lifted = geometry.lift(frustum[:, None, None])[0, camera, :, 0, 0]
        torch.testing.assert_close(lifted, points, rtol=0, atol=1e-4)


def test_a_feature_at_a_known_depth_fills_the_voxel_of_its_point():
    lift = transformer()
    geometry = ViewGeometry.from_data_samples([augmented_sample()])
    points = geometry.lift(make_frustum(BINS, (12, 32), 8))
    camera, bin_, row, column = 2, 9, 7, 20
    depth = torch.zeros(6, lift.num_bins, 12, 32)
    depth[camera, bin_, row, column] = 1
    volume = lift.splat(depth, torch.ones(6, 4, 12, 32), geometry)
    cell, inside = lift.grid.index(points[0, camera, bin_, row, column])
    x, y, z = cell.tolist()
    assert inside and volume.sum() == 4
    assert (volume[0, :, z, y, x] == 1).all()


@pytest.mark.parametrize('flip, axis', [(FLIP_X, -1), (FLIP_Y, -2)])
def test_mirroring_the_ego_frame_mirrors_the_volume(flip, axis):
    # truncation treats the lower and the upper bounds differently
    lift = transformer(published_truncation=False)
    features = torch.randn(6, 8, 12, 32)
    sample = make_sample()
    # off the cell borders, where rounding decides
    cam2ego = sample.cam2ego.copy()
    cam2ego[:, :3, 3] += 0.0137, 0.0211, 0.0173
    sample.set_metainfo(dict(cam2ego=cam2ego))
    plain, _ = lift(features, ViewGeometry.from_data_samples([sample]))
    sample.set_metainfo(dict(bda_mat=flip))
    mirrored, _ = lift(features, ViewGeometry.from_data_samples([sample]))
    assert plain.any()
    torch.testing.assert_close(mirrored, plain.flip(axis))


def test_samples_of_a_batch_do_not_mix():
    lift = transformer()
    features = torch.randn(12, 8, 12, 32)
    samples = [make_sample(), augmented_sample()]
    both, _ = lift(features, ViewGeometry.from_data_samples(samples))
    for index, sample in enumerate(samples):
        alone, _ = lift(
            features[6 * index : 6 * (index + 1)], ViewGeometry.from_data_samples([sample])
        )
        torch.testing.assert_close(both[index], alone[0])


def test_known_depth_replaces_the_prediction_where_given():
    lift = transformer()
    features = torch.randn(6, 8, 12, 32)
    geometry = ViewGeometry.from_data_samples([make_sample()])
    predicted, depth = lift(features, geometry)
    unknown, _ = lift(features, geometry, torch.zeros_like(depth))
    torch.testing.assert_close(unknown, predicted)
    known = torch.zeros_like(depth)
    known[:, 9] = 1
    context = lift.depth_net(features)[:, lift.num_bins :]
    expected = lift.splat(known, context, geometry)
    torch.testing.assert_close(lift(features, geometry, known)[0], expected)


def test_truncation_keeps_points_just_below_the_lower_bound():
    grid = VoxelGrid((0, 0, 0, 4, 4, 4), (4, 4, 4))
    points = torch.tensor([[-0.5, 0.5, 0.5], [-1.5, 0.5, 0.5], [4.5, 0.5, 0.5], [3.5, 2.5, 1.5]])[
        None
    ]
    kept, voxels = assign_voxels(points, grid, truncate=True)
    assert kept.tolist() == [0, 3]
    assert voxels.tolist() == [0, (1 * 4 + 2) * 4 + 3]
    kept, _ = assign_voxels(points, grid, truncate=False)
    assert kept.tolist() == [3]


def test_one_hot_depth_takes_the_nearest_return_of_a_cell():
    maps = torch.zeros(1, 4, 8)
    maps[0, 1, 1], maps[0, 3, 3] = 7.9, 3.2  # same cell of 4 x 4 pixels
    one_hot = one_hot_depth(maps, BINS, 4)
    assert one_hot.shape == (1, 44, 1, 2)
    assert one_hot[0, :, 0, 0].argmax() == 2 and one_hot.sum() == 1


@pytest.mark.parametrize('config', [(1, 45, 0.5), (2, 42, 1.0)])
def test_spacing_increasing_bins_are_those_of_the_published_formulas(config):
    """Depths and classes as FlashOCC @4084861 has them, in float64."""
    first, end, step = config
    bins = DepthBins(*config, sid=True)
    count = len(np.arange(*config))
    span = np.log((end - 1) / first)
    depths = np.exp(np.log(first) + np.arange(count) / (count - 1) * span)
    np.testing.assert_allclose(bins.depths(), depths, rtol=1e-6)

    generator = np.random.default_rng(0)
    returns = generator.uniform(0, 1.2 * end, (1, 64, 64)).round(3)
    returns[0, ::3] = 0  # nothing there
    with np.errstate(divide='ignore'):
        position = (np.log(returns) - np.log(first)) * (count - 1) / span + 1
    # rounding may decide beside an edge
    inside = position[returns > 0]
    assert np.abs(inside - inside.round()).min() > 1e-5
    kept = (position >= 0) & (position < count + 1) & (returns > 0)
    classes = np.where(kept, np.floor(position), 0).astype(int)
    one_hot = one_hot_depth(torch.from_numpy(returns).float(), bins, 1)
    assert one_hot.shape == (1, count, 64, 64)
    wanted = np.eye(count + 1)[classes][..., 1:]
    np.testing.assert_array_equal(one_hot.movedim(1, -1), wanted)


def test_a_stereo_student_with_growing_bins_matches_and_lifts_in_them(monkeypatch):
    from radocc_plugin.models.lift_splat import view_transformer as module

    asked = []
    monkeypatch.setattr(
        module, 'sampling_positions', lambda geometry, previous, bins, *args: asked.append(bins)
    )
    monkeypatch.setattr(module, 'cost_volume', lambda *args: None)
    lift = LSSViewTransformerBEVStereo(
        grid_config=dict(GRID, depth=(1.0, 45.0, 0.5)), in_channels=8, out_channels=4, sid=True
    )
    feature = torch.zeros(6, 4, 8, 8)
    lift.match(feature, feature, None, None)
    # 6.78 m, where linear bins have 23 m
    assert float(asked[0].depths()[44]) == pytest.approx(6.78, abs=0.005)
    assert asked == [lift.depth_bins]


@pytest.mark.parametrize(
    'depth, sid', [((0, 45, 1), False), ((1, 45, 0), False), ((1, 2, 0.5), True)]
)
def test_bins_behind_the_camera_or_empty_are_refused(depth, sid):
    with pytest.raises(ValueError, match=r'grid_config\.depth takes'):
        DepthBins(*depth, sid=sid)


def test_depth_loss_is_the_published_formula_and_zero_without_returns():
    depth = torch.rand(2, 5, 3, 4).softmax(1).requires_grad_()
    targets = torch.zeros(2, 5, 3, 4)
    targets[0, 2, 1, 1] = targets[1, 4, 2, 0] = 1
    p, q = depth[0, :, 1, 1], depth[1, :, 2, 0]
    expected = (
        -sum(
            (row.log() if k == hit else (1 - row).log())
            for cell, hit in ((p, 2), (q, 4))
            for k, row in enumerate(cell)
        )
        / 2
    )
    torch.testing.assert_close(depth_loss(depth, targets), expected)
    nothing = depth_loss(depth, torch.zeros_like(targets))
    nothing.backward()
    assert nothing == 0 and not depth.grad.any()


@pytest.mark.parametrize('scale, tolerance', [(1, 1e-7), (8, 1e-4), (20, 0.07)])
def test_depth_loss_has_the_gradient_of_float64_however_sure_the_bins(scale, tolerance):
    """The published formula is off by 1e3 in the last case; what is left is
    its -log p without a gradient for p < 1e-12."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 44, 3, 4, generator=generator) * scale
    bins = torch.randint(44, (2, 3, 4), generator=generator)
    targets = F.one_hot(bins, 44).permute(0, 3, 1, 2).float()

    def published(depth):
        return F.binary_cross_entropy(depth, targets.to(depth), reduction='sum') / bins.numel()

    own, exact = logits.clone(), logits.double()
    for x, loss in ((own, lambda p: depth_loss(p, targets)), (exact, published)):
        loss(x.requires_grad_().softmax(1)).backward()
    torch.testing.assert_close(own.grad.double(), exact.grad, rtol=0, atol=tolerance)
    if scale == 1:  # bit by bit, where nothing is nearly sure
        plain = logits.clone().requires_grad_()
        published(plain.softmax(1)).backward()
        assert torch.equal(own.grad, plain.grad)


@pytest.mark.parametrize(
    'name, value, message',
    [
        ('bda_mat', np.eye(3), r'bda_mat .* takes shape \(4, 4\)'),
        ('cam2img', np.eye(3), r'cam2img .* takes shape \(N, 3, 3\)'),
    ],
)
def test_a_wrong_matrix_is_named(name, value, message):
    sample = make_sample()
    sample.set_metainfo({name: value})
    with pytest.raises(ValueError, match=message):
        ViewGeometry.from_data_samples([sample])


def test_a_missing_matrix_is_named():
    sample = make_sample()
    del sample.img_aug_mat
    with pytest.raises(ValueError, match='img_aug_mat'):
        ViewGeometry.from_data_samples([sample])


def test_a_rig_is_planned_once():
    lift, other = transformer(), transformer()
    features = torch.randn(6, 8, 12, 32)

    def misses(module, sample):
        before = plan_lift.cache_info().misses
        module(features, ViewGeometry.from_data_samples([sample]))
        return plan_lift.cache_info().misses - before

    plan_lift.cache_clear()
    assert misses(lift, make_sample()) == 1
    assert misses(lift, make_sample()) == 0
    assert misses(other, make_sample()) == 0  # a teacher's, say
    assert misses(lift, augmented_sample()) == 1
    assert misses(transformer(published_truncation=False), make_sample()) == 1


def test_a_plan_made_in_inference_serves_in_training():
    lift, sample = transformer(), make_sample()
    features = torch.randn(6, 8, 12, 32)
    plan_lift.cache_clear()
    with torch.inference_mode():
        lift(features, ViewGeometry.from_data_samples([sample]))
    volume, _ = lift(features, ViewGeometry.from_data_samples([sample]))
    volume.sum().backward()
    assert plan_lift.cache_info().hits == 1
    assert lift.depth_net.weight.grad.any()


def test_the_order_of_cameras_does_not_matter():
    lift, sample = transformer(), augmented_sample()
    features = torch.randn(6, 8, 12, 32)
    expected, _ = lift(features, ViewGeometry.from_data_samples([sample]))
    order = [3, 1, 5, 0, 2, 4]
    for name in ('cam2img', 'cam2ego', 'img_aug_mat'):
        sample.set_metainfo({name: sample.metainfo[name][order]})
    volume, _ = lift(features[order], ViewGeometry.from_data_samples([sample]))
    torch.testing.assert_close(volume, expected)


def test_a_static_point_is_lifted_to_one_place_from_every_frame():
    sample = make_sample(num_adjacent=2)
    sample.set_metainfo(dict(bda_mat=FLIP_Y))
    imgs, adjacent = torch.zeros(1, 6, 3, 8, 8), torch.zeros(1, 2, 6, 3, 8, 8)
    point = torch.tensor([[12.0, 4, 1]])
    for index, frame in enumerate(split_frames(imgs, [sample], 3, adjacent)):
        cam2ego = frame.geometry.cam2ego[0, 1].numpy()
        expected = cam2ego if index == 0 else sample.adjacent_cam2ego[index - 1][1]
        np.testing.assert_array_equal(cam2ego, expected)
        cameras = Cameras(
            frame.geometry.cam2img.float(),
            frame.geometry.cam2ego.float(),
            frame.geometry.bda_mat.float(),
            sample.ori_shape,
        )
        pixels, depth = cameras.project(point[None])
        frustum = torch.cat([pixels[0, 1], depth[0, 1, :, None]], -1)
        lifted = frame.geometry.lift(frustum[:, None, None])[0, 1, 0, 0, 0]
        torch.testing.assert_close(lifted, point[0], rtol=0, atol=1e-4)


def test_the_depth_net_is_told_the_key_frame():
    """As published, of earlier frames too."""
    sample = make_sample(num_adjacent=2)
    imgs, adjacent = torch.zeros(1, 6, 3, 8, 8), torch.zeros(1, 2, 6, 3, 8, 8)
    current, *earlier = split_frames(imgs, [sample], 3, adjacent)
    for frame in earlier:
        assert frame.geometry != current.geometry
        assert torch.equal(frame.geometry.depth_net_input(), current.geometry.depth_net_input())


def test_frames_that_do_not_fit_are_named():
    sample = make_sample(num_adjacent=2)
    imgs, adjacent = torch.zeros(1, 6, 3, 8, 8), torch.zeros(1, 2, 6, 3, 8, 8)
    with pytest.raises(ValueError, match='takes 3 adjacent frames'):
        split_frames(imgs, [sample], 4, adjacent)
    with pytest.raises(ValueError, match='hold 0'):
        split_frames(imgs, [sample], 2)
    with pytest.raises(ValueError, match=r'adjacent_cam2ego .*\(1, 6, 4, 4\)'):
        split_frames(imgs, [sample], 2, adjacent[:, :1])
    with pytest.raises(ValueError, match='imgs take'):
        split_frames(imgs[:, :5], [sample])
    with pytest.raises(ValueError, match='adjacent_cam2ego'):
        split_frames(imgs, [make_sample()], 2, adjacent)


def test_only_a_flat_grid_collapses():
    flat = dict(GRID, z=(-1, 5.4, 6.4))
    features = torch.randn(6, 8, 12, 32)
    geometry = ViewGeometry.from_data_samples([make_sample()])
    bev, _ = transformer(grid_config=flat, collapse_z=True)(features, geometry)
    volume, _ = transformer(grid_config=flat)(features, geometry)
    assert bev.shape == (1, 4, 100, 100)
    assert torch.equal(bev, volume[:, :, 0])
    with pytest.raises(ValueError, match='one cell in z, got 8'):
        transformer(collapse_z=True)


def test_depth_supervision_reaches_into_padded_images():
    """pad_size_divisor pads below and on the right, depth maps are not."""
    maps = torch.zeros(2, 13, 22)
    maps[0, 12, 21], maps[1, 0, 0] = 5.5, 9.2
    padded = F.pad(maps, (0, 10, 0, 3))
    bins = DepthBins(1, 45, 1)
    want = one_hot_depth(padded, bins, 16)
    assert torch.equal(one_hot_depth(maps, bins, 16, (1, 2)), want)
    assert want.sum() == 2
    with pytest.raises(ValueError, match='is larger than'):
        one_hot_depth(maps, bins, 16, (1, 1))


def test_an_input_size_that_the_stride_does_not_divide_names_itself():
    check_stride(torch.zeros(1, 3, 32, 48), torch.zeros(1, 8, 2, 3), 16)
    with pytest.raises(ValueError, match='input_size.*pad_size_divisor=16'):
        check_stride(torch.zeros(1, 3, 40, 48), torch.zeros(1, 8, 3, 3), 16)


def test_a_single_image_in_training_names_itself():
    net = DepthNet(
        in_channels=4, mid_channels=4, context_channels=2, depth_channels=3, aspp_mid_channels=4
    )
    with pytest.raises(ValueError, match='raise the batch size'):
        net(torch.zeros(1, 4, 2, 3), torch.zeros(1, 1, 27))
    net.eval()(torch.zeros(1, 4, 2, 3), torch.zeros(1, 1, 27))
