"""FlashOcc: 2D encoder, channel to height, the models."""

import pytest
import torch

from radocc_plugin.models.bevdet import FPN_LSS, BEVOCCHead2D, BEVOCCHead2D_V2, CustomResNet
from radocc_plugin.structures import OccData
from tests.support.models import build_model, load_config, make_batch, train_steps

CONFIGS = 'projects/FlashOcc/configs/flashocc_'
TINY = CONFIGS + 'tiny_1xb1-3e_synthetic.py'


def test_modes_return_what_the_contract_says():
    model = build_model(TINY).eval()
    inputs, samples = make_batch(2)
    with torch.no_grad():
        logits = model(inputs, samples)
        predictions = model(inputs, samples, mode='predict')
        losses = model(inputs, samples, mode='loss')
    assert logits.shape == (2, 200, 200, 16, 18)
    for sample, labels in zip(predictions, logits.argmax(-1)):
        assert torch.equal(sample.pred_occ.semantics.long(), labels)
    assert set(losses) == {'loss_occ', 'loss_depth'}


def test_a_few_steps_learn_a_frame():
    first, *_, last = train_steps(build_model(TINY))
    assert last['loss_occ'] < 0.9 * first['loss_occ']


def test_a_column_is_its_cells_channels():
    torch.manual_seed(0)
    head = BEVOCCHead2D(in_dim=4, out_dim=4, num_classes=3, Dz=5)
    bev = torch.randn(2, 4, 6, 7)  # Y, X
    logits = head(bev)
    assert logits.shape == (2, 7, 6, 5, 3)
    features = head.final_conv(bev)
    for x, y, z in ((0, 0, 0), (6, 2, 4), (3, 5, 1)):
        channels = head.predicter(features[:, :, y, x])
        torch.testing.assert_close(logits[:, x, y, z], channels[:, 3 * z : 3 * z + 3])


def test_the_neck_doubles_the_map_of_the_first_stage():
    encoder = CustomResNet(4, (1, 1, 1), (4, 8, 16), (2, 2, 2))
    neck = FPN_LSS(4 + 16, 6)
    assert neck(encoder(torch.randn(1, 4, 24, 32))).shape == (1, 6, 24, 32)
    with pytest.raises(ValueError, match=r'scale_factor 4 .*\(16, 16\)'):
        neck(encoder(torch.randn(1, 4, 26, 32)))


def test_class_balance_weighs_by_the_inverse_logarithm():
    head = BEVOCCHead2D(4, 4, class_balance=True)
    assert head.class_weight.argmax() == 2  # bicycles are rarest
    assert head.class_weight.argmin() == 17  # free
    assert 'class_weight' not in head.state_dict()
    with pytest.raises(ValueError, match='class_balance'):
        BEVOCCHead2D(4, 4, class_balance=True, class_weight=[1.0] * 18)


def test_m0_is_m1_with_half_the_width_behind_the_encoder():
    m0, m1 = (
        load_config(f'{CONFIGS}r50-{size}-256x704_4xb4-24e_occ3d.py') for size in ('m0', 'm1')
    )
    assert m0.model.pop('img_bev_encoder_neck').out_channels == 128
    assert m1.model.pop('img_bev_encoder_neck').out_channels == 256
    assert m0.model.pop('occ_head').in_dim == 128
    assert m1.model.pop('occ_head').in_dim == 256
    for config, step in (m0, 1.0), (m1, 0.5):
        grid = config.model.img_view_transformer.grid_config
        assert grid.pop('depth') == (1.0, 45.0, step)
    assert m0.to_dict() == m1.to_dict()


# Depth bins, whether they grow, and parameters in millions.
SIZES = {
    'r50-m0-256x704': (44, False, 39.939),
    'r50-m1-256x704': (88, False, 44.744),
    'r50-depth-tiny-256x704': (44, False, 45.318),
    'r50-depth-256x704': (88, False, 57.834),
    'r50-4d-stereo-256x704': (88, True, 58.668),
    'swin-b-4d-stereo-512x1408': (88, False, 144.989),
}


@pytest.mark.parametrize('name', SIZES)
def test_bins_and_parameters_are_the_published_ones(name):
    count, grows, parameters = SIZES[name]
    model = build_model(f'{CONFIGS}{name}_4xb4-24e_occ3d.py')
    lift = model.img_view_transformer
    assert (lift.depth_bins.count, lift.depth_bins.sid) == (count, grows)
    total = sum(p.numel() for p in model.parameters())
    assert total / 1e6 == pytest.approx(parameters, abs=0.001)


def test_loading_says_for_which_bins(monkeypatch):
    from radocc_plugin.models.lift_splat import view_transformer

    said = []
    monkeypatch.setattr(view_transformer, 'print_log', lambda text, logger: said.append(text))
    for sid, text in ((True, 'grow with depth'), (False, 'equally wide')):
        lift = view_transformer.LSSViewTransformer(
            dict(x=(0, 4, 1), y=(0, 4, 1), z=(0, 4, 1), depth=(1, 45, 0.5)), 4, 4, sid=sid
        )
        lift.load_state_dict(lift.state_dict())
        assert len(said) == 1 and text in said.pop()


def test_the_stronger_losses_are_those_of_fbocc():
    from radocc_plugin.losses import class_balanced_weights
    from radocc_plugin.models.fbocc import FBOccHead

    torch.manual_seed(0)
    samples = make_batch(1)[1]
    truth = samples[0].gt_occ
    samples[0].gt_occ = OccData(
        semantics=truth.semantics[::10, ::10, ::4], mask_camera=truth.mask_camera[::10, ::10, ::4]
    )
    logits = torch.randn(1, 20, 20, 4, 18)
    head = BEVOCCHead2D_V2(4, 4, use_mask=True)
    torch.testing.assert_close(head.class_weight, class_balanced_weights())
    assert 'class_weight' not in head.state_dict()
    found = head.loss(logits, samples)
    # FB-OCC's have a void class more, of weight 0 and never predicted here
    void = torch.full((1, 20, 20, 4, 1), -1e4)
    theirs = FBOccHead(8, 8).loss(torch.cat([void, logits], -1).permute(0, 4, 2, 1, 3), samples)
    for ours, name in (
        ('loss_occ', 'loss_focal'),
        ('loss_sem_scal',) * 2,
        ('loss_geo_scal',) * 2,
        ('loss_lovasz',) * 2,
    ):
        torch.testing.assert_close(found[ours], theirs[name])
    everywhere = BEVOCCHead2D_V2(4, 4).loss(logits, samples)
    assert everywhere['loss_occ'] != found['loss_occ']


def test_the_swin_model_has_the_stereo_images_of_bevdet_occ():
    ours = load_config(CONFIGS + 'swin-b-4d-stereo-512x1408_4xb4-24e_occ3d.py').model
    theirs = load_config(
        'projects/BEVDetOcc/configs/bevdet-occ_swin-b-4d-stereo-512x1408_32xb2-24e_occ3d.py'
    ).model
    for name in ('img_backbone', 'img_neck', 'num_adj', 'data_preprocessor'):
        assert ours[name] == theirs[name]
