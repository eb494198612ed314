"""Golden cases of BEVFormer-Occ as our modules and frames."""

import numpy as np
import torch

from radocc_plugin.models.bevformer import (
    BEVFormerEncoder,
    BEVFormerOcc,
    BEVFormerOccHead,
    Frame,
    PreviousBEV,
)

HEAD = 'pts_bbox_head.'


def layer_arguments(layer: dict) -> dict:
    """A published layer as arguments of our encoder."""
    temporal, spatial = layer['attn_cfgs']
    assert temporal['type'] == 'TemporalSelfAttention'
    assert temporal['num_levels'] == 1
    assert spatial['type'] == 'SpatialCrossAttention'
    assert layer['operation_order'] == ['self_attn', 'norm', 'cross_attn', 'norm', 'ffn', 'norm']
    mlp = layer['ffn_cfgs']
    assert (mlp['type'], mlp['num_fcs'], mlp['act_cfg']['type']) == ('FFN', 2, 'ReLU')
    attention = spatial['deformable_attention']
    return dict(
        embed_dims=spatial['embed_dims'],
        num_levels=attention['num_levels'],
        num_points=attention['num_points'],
        feedforward_channels=mlp['feedforward_channels'],
        dropout=mlp['ffn_drop'],
    )


def head_config(published: dict, **transformer) -> dict:
    """A published head as a config of ours, with changes."""
    old = published['transformer']
    assert old['use_3d'] and not old['use_conv']
    assert old['rotate_prev_bev'] and old['use_shift'] and old['use_can_bus']
    assert old['norm_cfg_3d'] == dict(type='BN3d')
    encoder = old['encoder']
    return dict(
        type='radocc_plugin.BEVFormerOccHead',
        bev_h=published['bev_h'],
        bev_w=published['bev_w'],
        point_cloud_range=published['pc_range'],
        use_mask=published.get('use_mask', False),
        transformer=dict(
            type='radocc_plugin.TransformerOcc',
            pillar_h=old['pillar_h'],
            num_classes=old['num_classes'],
            rotate_center=old.get('rotate_center', (100, 100)),
            encoder=dict(
                type='radocc_plugin.BEVFormerEncoder',
                num_layers=encoder['num_layers'],
                num_points_in_pillar=encoder['num_points_in_pillar'],
                **layer_arguments(encoder['transformerlayers']),
            ),
            **dict(dict(shift_frame='lidar'), **transformer),
        ),
        positional_encoding=dict(
            published['positional_encoding'], type='mmdet.LearnedPositionalEncoding'
        ),
    )


def build_head(golden, case, **transformer) -> BEVFormerOccHead:
    """The head of a case with its weights, in eval mode."""
    config = head_config(case.config['constructor'], **transformer)
    config.pop('type')
    return fill(golden, case, BEVFormerOccHead(**config))


def build_encoder_layer(golden, case):
    """The encoder layer of a case with its weights, in eval mode."""
    published = case.config['constructor']
    encoder = BEVFormerEncoder(
        num_layers=1,
        num_points_in_pillar=published['num_points_in_pillar'],
        **layer_arguments(published),
    )
    return fill(golden, case, encoder.layers[0])


def build_detector(golden, case) -> BEVFormerOcc:
    """The detector of a case with its weights, in eval mode."""
    published = case.config['constructor']
    model = BEVFormerOcc(
        img_backbone=scoped(published['img_backbone']),
        img_neck=scoped(published['img_neck']),
        pts_bbox_head=head_config(published['pts_bbox_head']),
        use_grid_mask=published['use_grid_mask'],
        video_test_mode=published['video_test_mode'],
        data_preprocessor=dict(type='radocc_plugin.OccDataPreprocessor'),
    )
    return fill(golden, case, model)


def scoped(config: dict) -> dict:
    return dict(config, type=f'mmdet.{config["type"]}')


def fill(golden, case, module):
    """Checks the keys where the case has all, and sets the weights."""
    prefix = case.config['prefix']
    state = {prefix + k: v for k, v in module.state_dict().items()}
    golden.check_keys(state, case)
    golden.fill_(state, case.config['weight_seed'], gains=case.config.get('gains', ()))
    return module.eval()


def levels_of(case, prefix='feat'):
    """Image features, finest first."""
    names = [n for n in case.input_names() if n.startswith(prefix)]
    return [case.input(f'{prefix}{i}') for i in range(len(names))]


def ego2img_of(case):
    """Shape (B, 6, 4, 4), float64."""
    matrix = case.input('lidar2img').double() @ case.input('ego2lidar').double()
    return matrix.view(-1, 6, 4, 4)


def calibration_of(case) -> dict:
    """What ``encode`` takes beside CAN bus vectors and previous BEV."""
    ego2img = ego2img_of(case)
    return dict(
        ego2img=ego2img,
        image_shape=tuple(case.input('img_shape').tolist()),
        bda_mat=np.tile(np.eye(4), (len(ego2img), 1, 1)),
    )


def frame_of(case, images, step) -> Frame:
    """Frame ``step`` of a case with a stream or queue."""
    assert tuple(case.input('img_shape')) == tuple(images.shape[-2:])
    return Frame(
        images,
        ego2img_of(case),
        case.input('can_bus_absolute').numpy()[step : step + 1],
        np.eye(4)[None],
        np.arange(1),
    )


def as_map(bev, bev_shape):
    """(B, H * W, C) as (B, C, H, W)."""
    return bev.transpose(1, 2).unflatten(2, bev_shape)


def previous_of(bev):
    return PreviousBEV(bev, torch.ones(len(bev), dtype=torch.bool))
