"""Parity with the published modules; sizes, seeds, tolerances of the cases."""

import numpy as np
import pytest
import torch
from torch import nn

from radocc_plugin.losses.occupancy import masked_cross_entropy
from radocc_plugin.models.bevdet import (
    FPN_LSS,
    LSSFPN3D,
    BEVOCCHead3D,
    CustomFPN,
    CustomResNet3D,
    StereoSwinTransformer,
)
from radocc_plugin.models.lift_splat import (
    LSSViewTransformer,
    LSSViewTransformerBEVDepth,
    LSSViewTransformerBEVStereo,
    ViewGeometry,
)
from radocc_plugin.models.lift_splat.cost_volume import (
    costs_by_channels,
    costs_by_planes,
    sampling_positions,
)
from radocc_plugin.models.lift_splat.depth import DepthBins, depth_loss
from radocc_plugin.models.lift_splat.lift import assign_voxels, make_frustum

LIFT = ('grid_config', 'in_channels', 'out_channels', 'downsample', 'sid')


def geometry_of(case) -> ViewGeometry:
    intrin, rotation = case.input('intrin'), case.input('post_rot')
    image = torch.eye(4).repeat(*intrin.shape[:2], 1, 1)
    image[..., :3, :3] = rotation
    image[..., :3, 3] = case.input('post_tran')
    bda = torch.eye(4).repeat(len(intrin), 1, 1)
    bda[:, :3, :3] = case.input('bda')
    return ViewGeometry(
        intrin.double(), case.input('sensor2keyego').double(), image.double(), bda.double()
    )


def bins_of(case) -> DepthBins:
    config = case.config['view_transformer']
    return DepthBins(*config['grid_config']['depth'], sid=config.get('sid', False))


def frustum_of(case):
    config = case.config['view_transformer']
    stride = config['downsample']
    return make_frustum(bins_of(case), [size // stride for size in config['input_size']], stride)


def view_transformer(case, cls, **changes):
    config = case.config['view_transformer']
    settings = {name: config[name] for name in LIFT if name in config}
    return cls(**{**settings, **changes})


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

    (current,) = model.pre_process_net(case.input('curr'))
    (previous,) = model.pre_process_net(case.input('prev'))
    golden.compare(case, 'pre', current)
    levels = model.img_bev_encoder_backbone(torch.cat([previous, current], dim=1))
    for stage, level in enumerate(levels):
        golden.compare(case, f'stage{stage}', level)
    volume = neck(levels)
    golden.compare(case, 'neck', volume)
    logits = head(volume)
    golden.compare(case, 'logits', logits)
    loss = masked_cross_entropy(logits, case.input('labels'), case.input('mask_camera'))
    golden.compare(case, 'loss_occ', loss)


@pytest.mark.parametrize('truncate, suffix', [(True, ''), (False, '_floor')])
def test_golden_bevdet_lift(golden, truncate, suffix):
    case = golden.case('bevdet_lift')
    transformer = view_transformer(case, LSSViewTransformer, published_truncation=truncate)
    frustum, geometry = frustum_of(case), geometry_of(case)
    golden.compare(case, 'frustum', frustum)
    points = geometry.lift(frustum)
    golden.compare(case, 'coor', points)
    point_of, voxel_of = assign_voxels(points, transformer.grid, truncate)
    golden.compare(case, f'kept{suffix}', np.array([len(point_of)], 'f4'))

    depth = case.input('depth').requires_grad_()
    features = case.input('feat').requires_grad_()
    pooled = transformer.splat(depth, features, geometry)
    golden.compare(case, f'pooled{suffix}', pooled)
    if truncate:
        ranks = torch.full((points[..., 0].numel(),), -1)
        ranks[point_of] = voxel_of
        golden.compare(case, 'rank_of_point', ranks.int())
        (pooled * case.input('cotangent')).sum().backward()
        golden.compare(case, 'grad_depth', depth.grad)
        golden.compare(case, 'grad_feat', features.grad)


def test_golden_bevdet_lift_collapsed(golden):
    case = golden.case('bevdet_lift')
    grid = dict(case.config['view_transformer']['grid_config'])
    grid['z'] = case.config['collapsed_z']
    transformer = view_transformer(case, LSSViewTransformer, grid_config=grid, collapse_z=True)
    pooled = transformer.splat(case.input('depth'), case.input('feat'), geometry_of(case))
    golden.compare(case, 'pooled_collapsed', pooled)


def previous_geometry_of(case):
    """Geometry of the frame before, from the motion of each camera."""
    geometry = geometry_of(case)
    motion = torch.linalg.inv(case.input('curr_cam_to_prev_cam').double())
    return geometry.earlier(geometry.cam2ego @ motion)


@pytest.mark.parametrize('costs_by', [costs_by_planes, costs_by_channels])
def test_golden_bevdet_cost_volume(golden, costs_by):
    case = golden.case('bevdet_cost_volume')
    current, previous = case.input('feat_curr'), case.input('feat_prev')
    # one channel has exact zeros, see the notes of the case
    first_of_last_group = -case.config['group_size']
    previous[:, first_of_last_group][case.input('zero_mask')] = 0
    config = case.config['view_transformer']
    positions = sampling_positions(
        geometry_of(case), previous_geometry_of(case), bins_of(case), current.shape[-2:], 'cpu'
    )
    golden.compare(case, 'grid', positions.flatten(1, 2))
    for bias, name in ((config['depthnet_cfg']['bias'], 'cost_volume'), (0, 'cost_volume_nobias')):
        costs = costs_by(current, previous, positions, bias, case.config['group_size'])
        golden.compare(case, name, (-costs).softmax(1))


@pytest.mark.parametrize(
    'cls, name',
    [
        (LSSViewTransformerBEVDepth, 'mono'),
        (LSSViewTransformerBEVStereo, 'stereo_noprev'),
        (LSSViewTransformerBEVStereo, 'stereo_prev'),
    ],
)
def test_golden_bevdet_depthnet(golden, cls, name):
    case = golden.case('bevdet_depthnet')
    config = case.config['view_transformer']
    transformer = view_transformer(
        case,
        cls,
        loss_depth_weight=config['loss_depth_weight'],
        depthnet_cfg=dict(aspp_mid_channels=config['depthnet_cfg']['aspp_mid_channels']),
    )
    if cls.stereo:
        golden.check_keys(transformer, case, prefix='img_view_transformer.')
        transformer.matching_bias = config['depthnet_cfg']['bias']
    golden.fill_(
        transformer,
        case.config['weight_seed'],
        prefix='img_view_transformer.',
        gains=case.config['gains'],
    )
    transformer.eval()
    geometry, matching = geometry_of(case), None
    golden.compare(case, 'mlp_input', geometry.depth_net_input())
    if name == 'stereo_prev':
        matching = transformer.match(
            case.input('feat_curr'), case.input('feat_prev'), geometry, previous_geometry_of(case)
        )
    prediction = transformer.predict_depth(case.input('x'), geometry, matching)
    golden.compare(case, name, prediction)
    one_hot = transformer.one_hot_depth(case.input('gt_depth').flatten(0, 1))
    golden.compare(case, 'gt_onehot', one_hot.permute(0, 2, 3, 1).flatten(0, 2).to(torch.uint8))
    if name == 'stereo_prev':
        depth = prediction[:, : transformer.num_bins].softmax(1)
        loss = config['loss_depth_weight'] * depth_loss(depth, one_hot)
        golden.compare(case, 'depth_loss', loss)


def test_golden_bevdet_fpn_lss(golden):
    case = golden.case('bevdet_fpn_lss')
    neck = FPN_LSS(**case.config['neck']).eval()
    golden.check_keys(neck, case, prefix='img_neck.')
    golden.fill_(neck, case.config['weight_seed'], prefix='img_neck.')
    golden.compare(case, 'out', neck([case.input('s2'), case.input('s3')]))


@pytest.mark.slow  # Swin-B
def test_golden_bevdet_swin_stereo(golden):
    case = golden.case('bevdet_swin_stereo')
    published = ('return_stereo_feat', 'pretrain_style', 'output_missing_index_as_none')
    config = {
        name: value for name, value in case.config['img_backbone'].items() if name not in published
    }
    model = nn.Module()
    model.img_backbone = StereoSwinTransformer(**config)
    model.img_neck = FPN_LSS(**case.config['img_neck'])
    golden.check_keys(model, case)
    golden.fill_(model, case.config['weight_seed'])
    model.eval()
    with torch.no_grad():
        stereo, out2, out3 = model.img_backbone(case.input('imgs'))
        reference = model.img_backbone.stereo_feature(case.input('imgs'))
        neck = model.img_neck([out2, out3])
    for name, value in dict(stereo=stereo, out2=out2, out3=out3, ref=reference, neck=neck).items():
        golden.compare(case, name, value)
