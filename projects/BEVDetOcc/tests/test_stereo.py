"""Temporal stereo: backbones, cost volume, frames."""

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.backbones import ResNet, SwinTransformer

from radocc_plugin.models.bevdet import StereoResNet, StereoSwinTransformer
from radocc_plugin.models.lift_splat import DepthBins, ViewGeometry
from radocc_plugin.models.lift_splat.cost_volume import (
    cost_volume,
    costs_by_channels,
    costs_by_planes,
    sampling_positions,
)

BINS = DepthBins(1.0, 9.0, 1.0)
COSTS = [costs_by_planes, costs_by_channels]  # of a CPU, of other devices


def camera(shift: float = 0.0) -> ViewGeometry:
    """A camera of focal length 160, 32 x 64 pixels, moved to its right."""
    cam2img = torch.tensor([[160.0, 0, 31.5], [0, 160.0, 15.5], [0, 0, 1]])
    cam2ego = torch.eye(4)
    cam2ego[0, 3] = shift
    return ViewGeometry(
        cam2img.view(1, 1, 3, 3).double(),
        cam2ego.view(1, 1, 4, 4).double(),
        torch.eye(4, dtype=torch.float64).view(1, 1, 4, 4),
        torch.eye(4, dtype=torch.float64)[None],
    )


def positions_of(shift, size=(8, 16)):
    return sampling_positions(camera(), camera(shift), BINS, size, 'cpu')


def random_features(channels=8, size=(8, 16)):
    return torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('costs_by', COSTS)
def test_cost_volume_is_that_of_grid_sample(costs_by):
    torch.manual_seed(0)
    for size in ((8, 16), (5, 7)):
        current, previous = torch.randn(2, 2, 12, *size)
        positions = torch.rand(2, 3, *size, 2) * 3 - 1.5
        positions[:, 0] = -2
        samples = F.grid_sample(previous, positions.flatten(1, 2), align_corners=True)
        samples = samples.unflatten(2, (3, size[0]))
        cost = (current[:, :, None] - samples).abs().sum(1)
        cost = cost + 5.0 * (samples[:, -4] == 0)
        torch.testing.assert_close(costs_by(current, previous, positions, 5.0, 4), cost)
        torch.testing.assert_close(cost_volume(current, previous, positions), (-cost).softmax(1))


@pytest.mark.parametrize('at_once', [0, 5, 8, 100])
def test_costs_do_not_depend_on_the_channels_at_once(at_once):
    torch.manual_seed(0)
    current, previous = torch.randn(2, 2, 12, 5, 7)
    previous[:, 8] *= torch.rand(2, 5, 7) > 0.5  # exact zeros that decide
    positions = torch.rand(2, 3, 5, 7, 2) * 2.4 - 1.2
    costs = costs_by_channels(current, previous, positions, 5.0, 4, at_once * 3 * 5 * 7)
    torch.testing.assert_close(costs, costs_by_planes(current, previous, positions, 5.0, 4))


def test_what_moved_by_the_disparity_of_a_depth_matches_there():
    # 160 px * 0.5 m / d, in cells of 4 px: 4 cells at 5 m (bin 4)
    features = random_features(32)
    volume = cost_volume(features, features.roll(-4, -1), positions_of(0.5))
    assert volume.shape == (1, 8, 8, 16)
    torch.testing.assert_close(volume.sum(1), torch.ones(1, 8, 16))
    # the frustum runs end to end, 63 / 15 pixels a cell, not 4
    seen = slice(6, 14)
    assert (volume.argmax(1)[..., seen] == 4).all()


def test_without_motion_every_depth_matches_alike():
    features = random_features()
    volume = cost_volume(features, features, positions_of(0.0))
    torch.testing.assert_close(volume, torch.full_like(volume, 1 / 8), rtol=0, atol=1e-3)


def test_behind_the_earlier_camera_nothing_is_seen():
    geometry, turned = camera(), camera()
    turned.cam2ego[..., 0, 0] = turned.cam2ego[..., 2, 2] = -1
    positions = sampling_positions(geometry, turned, BINS, (8, 16), 'cpu')
    assert (positions == -2).all()
    features = random_features()
    volume = cost_volume(features, features, positions)
    torch.testing.assert_close(volume, torch.full_like(volume, 1 / 8))


def test_the_cost_volume_passes_no_gradient():
    current = random_features().requires_grad_()
    volume = cost_volume(current, current, positions_of(0.5))
    assert not volume.requires_grad


def test_the_stereo_resnet_is_mmdets():
    torch.manual_seed(0)
    settings = dict(depth=18, base_channels=16)
    ours = StereoResNet(**settings)
    theirs = ResNet(out_indices=(0, 2, 3), **settings)
    theirs.load_state_dict(ours.state_dict())
    ours.eval(), theirs.eval()
    images = torch.randn(2, 3, 50, 70)
    for a, b in zip(ours(images), theirs(images)):
        assert torch.equal(a, b)
    assert torch.equal(ours.stereo_feature(images), theirs(images)[0])
    with pytest.raises(ValueError, match='out_indices starts with 0'):
        StereoResNet(out_indices=(2, 3), **settings)


def test_the_stereo_swin_is_mmdets_and_a_stage_before_its_norm():
    torch.manual_seed(0)
    settings = dict(
        embed_dims=16,
        depths=(2, 2, 2),
        num_heads=(2, 2, 2),
        strides=(4, 2, 2),
        window_size=4,
        drop_path_rate=0.0,
    )
    ours = StereoSwinTransformer(out_indices=(1, 2), **settings)
    theirs = SwinTransformer(out_indices=(0, 1, 2), **settings)
    theirs.load_state_dict(ours.state_dict(), strict=False)
    ours.eval(), theirs.eval()
    images = torch.randn(2, 3, 50, 70)  # padded inside
    stereo, *levels = ours(images)
    first, *others = theirs(images)
    assert len(levels) == len(others) == 2
    for a, b in zip(levels, others):
        assert torch.equal(a, b)
    assert torch.equal(ours.stereo_feature(images), stereo)
    normed = theirs.norm0(stereo.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(normed, first)
