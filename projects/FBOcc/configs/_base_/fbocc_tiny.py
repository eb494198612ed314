# FB-OCC for two CPU cores: four past frames, few channels.
_base_ = './fbocc_r50.py'
model = dict(
    data_preprocessor=dict(channel_order='rgb'),
    img_backbone=dict(
        depth=18, base_channels=16, out_indices=(1, 2, 3), with_cp=False, init_cfg=None
    ),
    img_neck=dict(in_channels=[32, 64, 128], out_channels=64, with_cp=False),
    grid_config=dict(depth=(1.0, 45.0, 1.0)),
    downsample=8,
    depth_net=dict(in_channels=64, mid_channels=32, aspp_mid_channels=16, with_cp=False),
    loss_depth_weight=0.05,
    backward_projection=dict(num_heads=2, cross_points=4, feedforward_channels=32),
    channels=16,
    num_history=4,
    # multiples of 16 channels: other widths are several times slower on a CPU
    img_bev_encoder_backbone=dict(
        in_channels=16,
        channels=(32, 32, 64),
        strides=(2, 2, 2),
        num_blocks=(1, 1, 1),
        with_cp=False,
    ),
    img_bev_encoder_neck=dict(in_channels=(32, 32, 64), out_channels=32, with_cp=False),
    # 0.8 m cells, split into voxels
    occupancy_head=dict(
        in_channels=32,
        channels=16,
        hidden_channels=16,
        upsample=2,
        # The published ratios, on the scale of the cross entropy for which
        # RadOcc's weights were chosen; Lovasz would take a third of a step.
        loss_weights=dict(focal=25.0, sem_scal=0.25, geo_scal=0.25, lovasz=0.0),
        with_cp=False,
    ),
)
