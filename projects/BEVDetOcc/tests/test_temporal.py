"""Models that look back: frames, batches, sizes, flips, gradients."""

import numpy as np
import pytest
import torch
from torch import nn

from radocc_plugin.models.bevdet import BEVDetOcc
from tests.support.models import build_model, make_batch, train_steps

TINY = 'projects/BEVDetOcc/configs/bevdet-occ_tiny-4d-stereo_1xb1-3e_synthetic.py'
# 50 x 50 x 4 cells
COARSE = {
    f'img_view_transformer.grid_config.{axis}': (low, high, 1.6)
    for axis, low, high in (('x', -40, 40), ('y', -40, 40), ('z', -1, 5.4))
}
COARSE['occ_head.upsample'] = 1


@pytest.fixture(scope='module')
def model():
    return build_model(TINY, **COARSE).eval()


def batch_of(batch_size=1, **kwargs):
    return make_batch(batch_size, num_adjacent=2, **kwargs)


def test_samples_of_a_batch_do_not_mix(model):
    inputs, samples = batch_of(2)
    with torch.no_grad():
        both = model(inputs, samples)
        for index, sample in enumerate(samples):
            alone = {name: value[index : index + 1] for name, value in inputs.items()}
            torch.testing.assert_close(
                model(alone, [sample]), both[index : index + 1], rtol=1e-4, atol=1e-4
            )


@pytest.mark.parametrize('size', [(48, 80), (80, 144)])
def test_image_sizes_whose_levels_are_odd(model, size):
    """80 x 144 pixels have 5 x 9 cells; the level below has 3 x 5."""
    inputs, samples = batch_of(size=size)
    with torch.no_grad():
        _, depth = model.extract_volume(inputs, samples)
        logits = model(inputs, samples)
        losses = model.img_view_transformer.loss(depth, samples)
    assert depth.shape == (6, 44, size[0] // 16, size[1] // 16)
    assert logits.shape == (1, 50, 50, 4, 18) and logits.isfinite().all()
    assert losses['loss_depth'] > 0


def test_a_wrong_stride_is_named(model):
    inputs, samples = batch_of(size=(100, 256))
    with pytest.raises(ValueError, match='downsample .* is 16'):
        model(inputs, samples)


def test_the_newest_frames_count_and_older_ones_are_left_out(model):
    inputs, samples = batch_of()
    more, longer = make_batch(num_adjacent=4)
    more['imgs'] = inputs['imgs']
    more['adjacent_imgs'][:, :2] = inputs['adjacent_imgs']
    with torch.no_grad():
        expected = model(inputs, samples)
        assert torch.equal(model(more, longer), expected)
        more['adjacent_imgs'][:, 1] *= 0.5  # the reference of stereo
        assert not torch.equal(model(more, longer), expected)


def test_volumes_are_stacked_oldest_first(model):
    inputs, samples = batch_of()
    with torch.no_grad():
        volume, _ = model.extract_volume(inputs, samples)
        inputs['adjacent_imgs'] = inputs['adjacent_imgs'].clone()
        inputs['imgs'] = 0.5 * inputs['imgs']
        changed, _ = model.extract_volume(inputs, samples)
    channels = volume.shape[1] // 2
    assert torch.equal(changed[:, :channels], volume[:, :channels])
    assert not torch.equal(changed[:, channels:], volume[:, channels:])


def test_gradients_come_from_the_current_frame_only(model):
    inputs, samples = batch_of()
    for name in ('imgs', 'adjacent_imgs'):
        inputs[name].requires_grad_()
    model(inputs, samples).square().mean().backward()
    model.zero_grad()
    assert inputs['imgs'].grad.any()
    assert inputs['adjacent_imgs'].grad is None


def test_a_few_steps_learn_a_frame():
    model = build_model(TINY, **{**COARSE, 'occ_head.upsample': 4})
    first, *_, last = train_steps(model, num_adjacent=2)
    assert last['loss_occ'] < 0.9 * first['loss_occ']


def test_checkpointing_changes_nothing_but_memory():
    plain = build_model(TINY, **COARSE).eval()
    recomputed = build_model(
        TINY, **COARSE, **{'img_backbone.with_cp': True, 'img_bev_encoder_backbone.with_cp': True}
    ).eval()
    recomputed.load_state_dict(plain.state_dict())
    inputs, samples = batch_of()
    for model in (plain, recomputed):
        model.requires_grad_(False)
        model.img_bev_encoder_backbone.requires_grad_()
        model.img_neck.requires_grad_()
        model(inputs, samples).square().mean().backward()
    gradients = [
        {n: p.grad for n, p in m.named_parameters() if p.grad is not None}
        for m in (plain, recomputed)
    ]
    assert gradients[0].keys() == gradients[1].keys() and gradients[0]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


def mirror_symmetric_model() -> BEVDetOcc:
    """A stereo model that treats left and right, front and back alike.

    Its 3D kernels are symmetric in x and y, its depth net does not read the
    BDA entries, and it keeps no point below the lower bounds.
    """
    model = build_model(
        TINY,
        **COARSE,
        **{
            'img_view_transformer.published_truncation': False,
            'img_bev_encoder_backbone.num_layer': (1,),
            'img_bev_encoder_backbone.num_channels': (16,),
            'img_bev_encoder_backbone.stride': (1,),
            'img_bev_encoder_neck.in_channels': 16,
        },
    ).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            kernel = module.weight.data
            kernel += kernel.flip(-1)
            kernel += kernel.flip(-2)
    depth_net = model.img_view_transformer.depth_net
    for mlp in (depth_net.depth_mlp, depth_net.context_mlp):
        mlp.fc1.weight.data[:, 10:15] = 0
    return model


@pytest.mark.parametrize('signs, axes', [((-1, 1), (1,)), ((1, -1), (2,)), ((-1, -1), (1, 2))])
def test_flipping_the_world_and_unflipping_the_result_is_the_identity(signs, axes):
    model = mirror_symmetric_model()
    inputs, (sample,) = batch_of()
    # off the cell borders, where rounding decides
    shift = np.array([0.0137, 0.0211, 0.0173])
    for name in ('cam2ego', 'adjacent_cam2ego'):
        poses = sample.metainfo[name].copy()
        poses[..., :3, 3] += shift
        sample.set_metainfo({name: poses})
    with torch.no_grad():
        plain = model(inputs, [sample])
        sample.set_metainfo(dict(bda_mat=np.diag([*signs, 1.0, 1.0])))
        flipped = model(inputs, [sample])
    assert (plain - flipped).abs().max() > 0.01
    torch.testing.assert_close(flipped.flip(axes), plain, rtol=1e-3, atol=1e-4)
