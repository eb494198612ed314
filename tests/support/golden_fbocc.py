"""Golden cases of FB-OCC as our modules and batches."""

import torch

from radocc_plugin.models.fbocc import FBOcc
from radocc_plugin.models.lift_splat import ViewGeometry
from radocc_plugin.structures import OccDataSample


def geometry_of(case) -> ViewGeometry:
    """Calibration of a case."""
    rotation, shift, image_rotation, image_shift = (
        case.input(name).double() for name in ('rots', 'trans', 'post_rots', 'post_trans')
    )
    bda = torch.eye(4).double().repeat(len(rotation), 1, 1)
    bda[:, :3, :3] = case.input('bda')
    return ViewGeometry(
        case.input('intrins').double(),
        homogeneous(rotation, shift),
        homogeneous(image_rotation, image_shift),
        bda,
    )


def homogeneous(rotation, shift):
    """Matrices (..., 4, 4) of rotations (..., 3, 3) and shifts (..., 3)."""
    matrix = torch.zeros(*rotation.shape[:-2], 4, 4).double()
    matrix[..., :3, :3], matrix[..., :3, 3] = rotation, shift
    matrix[..., 3, 3] = 1
    return matrix


def flat(values):
    """(B, N, ...) to (B * N, ...)."""
    return values.flatten(0, 1)


def streamed_samples(case, step, geometry=None):
    """Data samples of a step of a stream; its state is by sequence."""
    samples = []
    for b, start in enumerate(case.input('start_of_sequence')[step].tolist()):
        metainfo = dict(
            token=f'{step}/{b}',
            prev='' if start else f'{step - 1}/{b}',
            sequence_group_idx=int(case.input('sequence_group_idx')[step, b]),
            start_of_sequence=start,
            ego2prev_ego=case.input('curr_to_prev_ego_rt')[step, b].double().numpy(),
        )
        if geometry is not None:
            for name in ('cam2img', 'cam2ego', 'img_aug_mat', 'bda_mat'):
                metainfo[name] = getattr(geometry, name)[b].numpy()
        samples.append(OccDataSample(metainfo=metainfo))
    return samples


def attention_of(published: dict) -> dict:
    """Our arguments of a published backward projection."""
    encoder = published['transformer']['encoder']
    layer = encoder['transformerlayers']
    deformable = layer['attn_cfgs'][1]['deformable_attention']
    return dict(
        anchors_z=encoder['grid_config']['z'],
        num_layers=encoder['num_layers'],
        cross_points=deformable['num_points'],
        feedforward_channels=layer['feedforward_channels'],
    )


def grid_of(published: dict, depth) -> dict:
    """Our grid of a published backward projection alone."""
    lower, upper = (published['pc_range'][i : i + 3] for i in (0, 3))
    cells = dict(x=published['bev_w'], y=published['bev_h'], z=8)  # any, in z
    grid = {
        axis: (lower[i], upper[i], (upper[i] - lower[i]) / cells[axis])
        for i, axis in enumerate('xyz')
    }
    return dict(grid, depth=depth)


def depth_net_of(published: dict) -> dict:
    """Our arguments of a published depth net, whose ASPP is as wide."""
    assert not published['use_dcn']
    return dict(
        in_channels=published['in_channels'],
        mid_channels=published['mid_channels'],
        aspp_mid_channels=published['mid_channels'],
    )


def encoder_of(published: dict) -> dict:
    assert published['depth'] == 18
    return dict(
        type='radocc_plugin.ResNet3D',
        in_channels=published['n_input_channels'],
        channels=published['block_inplanes'],
        strides=published['block_strides'],
    )


def pyramid_of(published: dict) -> dict:
    return dict(
        type='radocc_plugin.FPN3D',
        in_channels=published['in_channels'],
        out_channels=published['out_channels'],
    )


def head_of(published: dict) -> dict:
    assert published['soft_weights']
    (width,) = set(published['in_channels'])
    return dict(
        type='radocc_plugin.FBOccHead',
        in_channels=width,
        channels=width // 2,
        hidden_channels=width // 4,
        num_levels=published['num_level'],
    )


def build_detector(case) -> FBOcc:
    """The model that a case's config describes."""
    published = case.config['constructor']
    backbone = dict(published['img_backbone'], type='mmdet.ResNet')
    neck = published['img_neck']
    return FBOcc(
        img_backbone=backbone,
        img_neck=dict(
            type='radocc_plugin.CustomFPN',
            in_channels=neck['in_channels'],
            out_channels=neck['out_channels'],
        ),
        depth_net=depth_net_of(published['depth_net']),
        grid_config=published['forward_projection']['grid_config'],
        downsample=published['forward_projection']['downsample'],
        backward_projection=attention_of(published['backward_projection']),
        channels=published['single_bev_num_channels'],
        num_history=published['history_cat_num'],
        img_bev_encoder_backbone=encoder_of(published['img_bev_encoder_backbone']),
        img_bev_encoder_neck=pyramid_of(published['img_bev_encoder_neck']),
        occupancy_head=head_of(published['occupancy_head']),
        data_preprocessor=dict(type='radocc_plugin.OccDataPreprocessor'),
    )
