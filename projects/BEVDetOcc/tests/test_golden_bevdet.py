"""Parity with the published modules; sizes, seeds, tolerances of the cases."""
import numpy as np
import pytest
import torch
from torch import nn

from projects.BEVDetOcc.bevdet_occ import (BEVOCCHead3D, CustomFPN,
                                           CustomResNet3D, LSSFPN3D,
                                           LSSViewTransformer,
                                           LSSViewTransformerBEVDepth,
                                           ViewGeometry)
from projects.BEVDetOcc.bevdet_occ.view_transformer import assign_voxels
from projects.conftest import build_model
from radocc_plugin.losses.occupancy import masked_cross_entropy
from radocc_plugin.structures import OccData, OccDataSample

R50 = 'projects/BEVDetOcc/configs/_base_/bevdet-occ_r50.py'
LIFT = ('grid_config', 'input_size', 'in_channels', 'out_channels',
        'downsample')


def geometry_of(case) -> ViewGeometry:
    intrin, rotation = case.input('intrin'), case.input('post_rot')
    image = torch.eye(4).repeat(1, intrin.shape[1], 1, 1)
    image[..., :3, :3] = rotation
    image[..., :3, 3] = case.input('post_tran')
    bda = torch.eye(4)[None].clone()
    bda[:, :3, :3] = case.input('bda')
    return ViewGeometry(
        intrin.double(),
        case.input('sensor2keyego').double(), image.double(), bda.double())


def view_transformer(case, cls, **changes):
    config = case.config['view_transformer']
    return cls(**{**{name: config[name] for name in LIFT}, **changes})


def test_golden_bevdet_custom_fpn(golden):
    case = golden.case('bevdet_custom_fpn')
    config = case.config['neck']
    neck = CustomFPN(config['in_channels'], config['out_channels']).eval()
    golden.check_keys(neck, case, prefix='img_neck.')
    golden.fill_(neck, case.config['weight_seed'], prefix='img_neck.')
    out = neck([case.input('c4'), case.input('c5')])
    golden.compare(case, 'out', out)


def test_golden_bevdet_bev_encoder(golden):
    case = golden.case('bevdet_bev_encoder')
    model = nn.Module()
    for name in ('pre_process', 'img_bev_encoder_backbone'):
        config = dict(case.config[name])
        config.pop('with_cp', None)
        attribute = 'pre_process_net' if name == 'pre_process' else name
        setattr(model, attribute, CustomResNet3D(**config))
    neck = LSSFPN3D(**case.config['img_bev_encoder_neck'])
    head = BEVOCCHead3D(num_classes=case.config['num_classes'])
    # this code version has the head's layers in the detector itself
    model.img_bev_encoder_neck = neck
    model.final_conv, model.predicter = head.final_conv, head.predicter
    golden.check_keys(model, case)
    golden.fill_(model, case.config['weight_seed'])
    model.eval(), head.eval()

    current, = model.pre_process_net(case.input('curr'))
    previous, = model.pre_process_net(case.input('prev'))
    golden.compare(case, 'pre', current)
    levels = model.img_bev_encoder_backbone(
        torch.cat([previous, current], dim=1))
    for stage, level in enumerate(levels):
        golden.compare(case, f'stage{stage}', level)
    volume = neck(levels)
    golden.compare(case, 'neck', volume)
    logits = head(volume)
    golden.compare(case, 'logits', logits)
    loss = masked_cross_entropy(logits, case.input('labels'),
                                case.input('mask_camera'))
    golden.compare(case, 'loss_occ', loss)


@pytest.mark.parametrize('truncate, suffix', [(True, ''), (False, '_floor')])
def test_golden_bevdet_lift(golden, truncate, suffix):
    case = golden.case('bevdet_lift')
    transformer = view_transformer(
        case, LSSViewTransformer, published_truncation=truncate)
    golden.compare(case, 'frustum', transformer.frustum)
    points = geometry_of(case).lift(transformer.frustum)
    golden.compare(case, 'coor', points)
    point_of, voxel_of = assign_voxels(points, transformer.grid, truncate)
    golden.compare(case, f'kept{suffix}', np.array([len(point_of)], 'f4'))

    depth = case.input('depth').requires_grad_()
    features = case.input('feat').requires_grad_()
    pooled = transformer.splat(depth, features, points)
    golden.compare(case, f'pooled{suffix}', pooled)
    if truncate:
        ranks = torch.full((points[..., 0].numel(), ), -1)
        ranks[point_of] = voxel_of
        golden.compare(case, 'rank_of_point', ranks.int())
        (pooled * case.input('cotangent')).sum().backward()
        golden.compare(case, 'grad_depth', depth.grad)
        golden.compare(case, 'grad_feat', features.grad)


def test_golden_bevdet_lift_collapsed(golden):
    case = golden.case('bevdet_lift')
    grid = dict(case.config['view_transformer']['grid_config'])
    grid['z'] = case.config['collapsed_z']
    transformer = view_transformer(
        case, LSSViewTransformer, grid_config=grid)
    points = geometry_of(case).lift(transformer.frustum)
    pooled = transformer.splat(case.input('depth'), case.input('feat'), points)
    golden.compare(case, 'pooled_collapsed', pooled.squeeze(2))


def test_golden_bevdet_depthnet(golden):
    case = golden.case('bevdet_depthnet')
    transformer = view_transformer(
        case,
        LSSViewTransformerBEVDepth,
        depthnet_cfg=dict(aspp_mid_channels=case.config['view_transformer']
                          ['depthnet_cfg']['aspp_mid_channels']))
    golden.fill_(
        transformer,
        case.config['weight_seed'],
        prefix='img_view_transformer.',
        gains=case.config['gains'])
    transformer.eval()
    geometry = geometry_of(case)
    golden.compare(case, 'mlp_input', geometry.depth_net_input())
    golden.compare(case, 'mono',
                   transformer.predict_depth(case.input('x'), geometry))
    one_hot = transformer.one_hot_depth(case.input('gt_depth').flatten(0, 1))
    one_hot = one_hot.permute(0, 2, 3, 1).flatten(0, 2)
    golden.compare(case, 'gt_onehot', one_hot.to(torch.uint8))


@pytest.mark.slow  # a full-size forward on the CPU
def test_golden_flashocc_bevdetocc_full(golden):
    case = golden.case('flashocc_bevdetocc_full')
    config = case.config['model']['img_view_transformer']
    model = build_model(
        R50, **{'img_view_transformer.input_size': config['input_size']})
    golden.check_keys(model, case)
    golden.fill_(
        model, case.config['weight_seed'], gains=case.config['gains'])
    model.eval()

    ego2global = case.input('ego2global').double()
    # published: the key ego pose is that of the first camera
    cam2ego = torch.linalg.inv(
        ego2global[:, :1]) @ ego2global @ case.input('sensor2ego').double()
    image = np.tile(np.eye(4), (6, 1, 1))
    image[:, :3, :3] = case.input('post_rot')[0]
    image[:, :3, 3] = case.input('post_tran')[0]
    bda = np.eye(4)
    bda[:3, :3] = case.input('bda')[0]
    sample = OccDataSample(
        metainfo=dict(
            cam2img=case.input('intrin')[0].numpy(),
            cam2ego=cam2ego[0].numpy(),
            img_aug_mat=image,
            bda_mat=bda))
    labels, mask = case.input('labels'), case.input('mask_camera')
    with torch.no_grad():
        volume, depth = model.lift_images(case.input('imgs'), [sample])
        golden.compare(case, 'depth', depth)
        golden.compare(case, 'bev_in', volume)
        logits = model(dict(imgs=case.input('imgs')), [sample])
    golden.compare(case, 'logits', logits)
    golden.compare(case, 'argmax', logits.argmax(-1).to(torch.uint8))

    sample.gt_occ = OccData(semantics=labels[0], mask_camera=mask[0])
    golden.compare(case, 'loss_occ',
                   model.occ_head.loss(logits, [sample])['loss_occ'])
    golden.compare(case, 'loss_occ_nomask',
                   masked_cross_entropy(logits, labels))
    frequencies = torch.tensor(case.config['class_frequencies'])
    golden.compare(
        case, 'loss_occ_balanced',
        masked_cross_entropy(logits, labels, mask,
                             1 / (frequencies + 0.001).log()))
