"""Parity with the published FB-OCC; sizes, seeds, tolerances of the cases.

Losses and labels are compared in ``tests/test_losses`` and
``tests/test_datasets``.
"""

import pytest
import torch
from torch import nn

from radocc_plugin.models.fbocc import BackwardProjection, ForwardProjection
from radocc_plugin.models.fbocc.anchors import pillar_anchors, project_anchors
from radocc_plugin.models.lift_splat.depth import DepthBins, depth_loss, one_hot_depth
from radocc_plugin.models.lift_splat.depth_net import DepthNet
from radocc_plugin.models.lift_splat.lift import make_frustum
from radocc_plugin.registry import MODELS
from tests.support.golden_fbocc import (
    attention_of,
    build_detector,
    depth_net_of,
    encoder_of,
    flat,
    geometry_of,
    grid_of,
    head_of,
    pyramid_of,
    streamed_samples,
)


def fill(golden, case, module):
    """Weights of a case; its keys must be those of the module."""
    prefix = case.config['prefix']
    state = {prefix + key: v for key, v in module.state_dict().items()}
    golden.check_keys(state, case)
    golden.fill_(state, case.config['weight_seed'])
    for key in case.config.get('state_overrides', ()):
        state[key].copy_(case.input('state/' + key))
    return module.eval()


def test_golden_fbocc_depth_net(golden):
    case = golden.case('fbocc_depth_net')
    published = case.config['constructor']
    bins = DepthBins(*published['grid_config']['depth'])
    net = fill(
        golden,
        case,
        DepthNet(
            context_channels=published['context_channels'],
            depth_channels=published['depth_channels'],
            **depth_net_of(published),
        ),
    )
    camera = geometry_of(case).depth_net_input()
    golden.compare(case, 'mlp_input', camera)
    x = case.input('x')
    with torch.no_grad():
        out = net(flat(x), camera).unflatten(0, x.shape[:2])
    golden.compare(case, 'context', out[:, :, bins.count :])
    depth = out[:, :, : bins.count].softmax(2).requires_grad_()
    golden.compare(case, 'depth', depth)
    targets = one_hot_depth(flat(case.input('gt_depth')), bins, published['downsample'])
    golden.compare(case, 'gt_depth_onehot', targets.movedim(1, -1).flatten(0, 2).to(torch.uint8))
    loss = published['loss_depth_weight'] * depth_loss(flat(depth), targets)
    golden.compare(case, 'loss_depth', loss)
    loss.backward()
    golden.compare(case, 'loss_depth_grad', depth.grad)


def test_golden_fbocc_forward_projection(golden):
    case = golden.case('fbocc_forward_projection')
    published = case.config['constructor']
    module = ForwardProjection(published['grid_config'], published['downsample'])
    golden.check_keys(module, case, prefix=case.config['prefix'])
    geometry = geometry_of(case)
    depth = case.input('depth_logits').softmax(2)
    volume = module(flat(depth), flat(case.input('context')), geometry)
    golden.compare(case, 'volume', volume)
    golden.compare(case, 'volume_sum_c', volume.sum(1))
    golden.compare(case, 'volume_occupied', volume.any(1))
    frustum = make_frustum(module.depth_bins, depth.shape[-2:], module.downsample)
    golden.compare(case, 'points', geometry.lift(frustum))


def test_golden_fbocc_backward_projection(golden):
    case = golden.case('fbocc_backward_projection')
    published = case.config['constructor']
    encoder = published['transformer']['encoder']
    bins = encoder['transformerlayers']['attn_cfgs'][1]['dbound']
    projection = ForwardProjection(grid_of(published, bins))
    grid, bins = projection.grid, projection.depth_bins
    module = fill(
        golden,
        case,
        BackwardProjection(grid, bins, published['in_channels'], **attention_of(published)),
    )
    geometry = geometry_of(case)
    size = encoder['data_config']['input_size']
    anchors = project_anchors(
        pillar_anchors(grid, module.anchors_z, torch.device('cpu')), geometry, size, bins
    )
    seen = anchors.seen.transpose(0, 1)
    golden.compare(case, 'mask', seen)
    golden.compare(case, 'ref_cam_masked', anchors.positions.transpose(0, 1) * seen[..., None])
    golden.compare(
        case, 'depth_bin_masked', (anchors.depth_bins.transpose(0, 1) * seen).to(torch.uint8)
    )

    attended = []
    for attention in module.layers[0].attentions:
        attention.register_forward_hook(lambda module, args, out: attended.append(out))
    volume = case.input('lss_volume')
    depth = flat(case.input('depth_logits').softmax(2))
    with torch.no_grad():
        bev = module(volume, flat(case.input('context')), depth, geometry, size)
        without_depth = module(
            volume, flat(case.input('context')), torch.ones_like(depth), geometry, size
        )
    golden.compare(case, 'self_attention', attended[0])
    golden.compare(case, 'cross_attention', attended[1])
    golden.compare(case, 'bev', bev)
    golden.compare(case, 'readd', volume + bev[..., None])
    assert not golden.report(case, 'bev', without_depth)['ok']


@pytest.fixture(scope='module')
def history_case(golden):
    """The case and a model with its history; other parts are small."""
    case = golden.case('fbocc_history')
    published = case.config['constructor']
    whole = golden.case('fbocc_model').config['constructor']
    channels = published['single_bev_num_channels']
    model = MODELS.build(
        dict(
            type='radocc_plugin.FBOcc',
            img_backbone=dict(type='mmdet.ResNet', depth=18, base_channels=4),
            img_neck=dict(type='radocc_plugin.CustomFPN', in_channels=[16], out_channels=16),
            depth_net=dict(in_channels=16, mid_channels=16),
            grid_config=published['grid_config'],
            channels=channels,
            num_history=published['history_cat_num'],
            frame_interval=published['frame_interval_seconds'],
            img_bev_encoder_backbone=dict(
                encoder_of(whole['img_bev_encoder_backbone']),
                channels=[16],
                strides=[1],
                num_blocks=[1],
            ),
            img_bev_encoder_neck=dict(
                type='radocc_plugin.FPN3D', in_channels=[16], out_channels=16
            ),
            occupancy_head=dict(
                head_of(whole['occupancy_head']), in_channels=16, channels=16, num_levels=1
            ),
        )
    )
    state = {
        key: value
        for key, value in model.state_dict().items()
        if key.startswith(('history', 'forward_projection'))
    }
    golden.check_keys(state, case)
    golden.fill_(state, case.config['weight_seed'])
    return case, model.eval()


def fuse_step(case, model, step, start=None):
    """Of a stream; all samples start a sequence, or do not, if told."""
    samples = streamed_samples(case, step)
    for sample in samples if start is not None else ():
        sample.set_metainfo(dict(start_of_sequence=start))
    bda = torch.eye(4).double().repeat(case.config['batch'], 1, 1)
    bda[:, :3, :3] = case.input('bda')[step]
    with torch.no_grad():
        return model.fuse_history(case.input(f'bev{step}'), samples, bda)


def test_golden_fbocc_history(golden, history_case):
    case, model = history_case
    for step in range(case.config['steps']):
        golden.compare(case, f'fused{step}', fuse_step(case, model, step))
        memories = [
            model.streams['test'].memories[sample.token] for sample in streamed_samples(case, step)
        ]
        volumes = torch.stack([memory.volumes for memory in memories])
        golden.compare(case, f'history{step}', volumes.flatten(1, 2).permute(0, 1, 4, 2, 3))
        golden.compare(
            case, f'sweep_time{step}', torch.stack([memory.steps for memory in memories])
        )


def test_golden_fbocc_without_history(golden, history_case, monkeypatch):
    """As published copies of the frame move with the ego; ours may stay."""
    case, model = history_case
    monkeypatch.setattr(model, 'do_history', False)
    monkeypatch.setattr(model, 'training', True)  # norms stay in eval mode
    # The case starts a sequence and moves nevertheless.
    name = 'no_history_step1'
    golden.compare(case, name, fuse_step(case, model, 1, start=True))
    older = golden.report(case, name, fuse_step(case, model, 1, start=False))
    assert not older['ok']  # one frame old, see test_fbocc.py
    monkeypatch.setattr(model, 'published_motion', False)
    still = golden.report(case, name, fuse_step(case, model, 1, start=True))
    assert not still['ok']


def test_golden_fbocc_bev_encoder(golden):
    case = golden.case('fbocc_bev_encoder')
    published = case.config['constructor']
    module = nn.Module()
    module.img_bev_encoder_backbone = MODELS.build(
        encoder_of(published['img_bev_encoder_backbone'])
    )
    module.img_bev_encoder_neck = MODELS.build(pyramid_of(published['img_bev_encoder_neck']))
    fill(golden, case, module)
    with torch.no_grad():
        levels = module.img_bev_encoder_backbone(case.input('x'))
        outs = module.img_bev_encoder_neck(levels)
    for i, (level, out) in enumerate(zip(levels, outs)):
        golden.compare(case, f'backbone{i}', level)
        golden.compare(case, f'neck{i}', out)


def test_golden_fbocc_occ_head(golden):
    case = golden.case('fbocc_occ_head')
    head = fill(golden, case, MODELS.build(head_of(case.config['constructor'])))
    mixed = []
    head.occ_pred_conv.register_forward_pre_hook(lambda module, args: mixed.append(args[0]))
    with torch.no_grad():
        logits = head([case.input(f'level{i}') for i in range(3)])
    golden.compare(case, 'logits', logits)
    golden.compare(case, 'fused_features', mixed[0])
    probabilities = logits[:, 1:].permute(0, 3, 2, 4, 1).softmax(-1)
    golden.compare(case, 'probabilities_xyz', probabilities)
    golden.compare(case, 'classes_xyz', probabilities.argmax(-1).to(torch.uint8))


@pytest.mark.slow
def test_golden_fbocc_model(golden):
    case = golden.case('fbocc_model')
    model = fill(golden, case, build_detector(case))
    geometry = geometry_of(case)
    recorded = {}

    def record(name, module):
        module.register_forward_hook(lambda module, args, out: recorded.update({name: out}))

    for name, module in dict(
        depth_net=model.depth_net,
        volume=model.forward_projection,
        bev_refined=model.backward_projection,
        fused=model.history_keyframe_cat_conv,
        logits=model.occupancy_head,
    ).items():
        record(name, module)
    for step in range(case.config['steps']):
        images = case.input(f'img{step}')
        samples = streamed_samples(case, step, geometry)
        with torch.no_grad():
            samples = model(dict(imgs=images), samples, mode='predict')
        depth_net = recorded.pop('depth_net').unflatten(0, images.shape[:2])
        recorded['depth'] = depth_net[:, :, : model.num_bins].softmax(2)
        recorded['context'] = depth_net[:, :, model.num_bins :]
        for name, value in recorded.items():
            golden.compare(case, f'{name}{step}', value)
        golden.compare(
            case,
            f'classes_xyz{step}',
            torch.stack([sample.pred_occ.semantics for sample in samples]),
        )
