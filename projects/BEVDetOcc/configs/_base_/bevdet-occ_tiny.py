# BEVDet-Occ for two CPU cores: 0.8 m cells that the head splits into voxels.
custom_imports = dict(imports=['radocc_plugin.models'])
model = dict(
    type='radocc_plugin.BEVDetOcc',
    data_preprocessor=dict(type='radocc_plugin.OccDataPreprocessor'),
    img_backbone=dict(
        type='mmdet.ResNet', depth=18, base_channels=16, out_indices=(1, 2, 3), norm_eval=False
    ),
    img_neck=dict(type='radocc_plugin.CustomFPN', in_channels=[32, 64, 128], out_channels=64),
    img_view_transformer=dict(
        type='radocc_plugin.LSSViewTransformer',
        grid_config=dict(
            x=(-40, 40, 0.8), y=(-40, 40, 0.8), z=(-1, 5.4, 0.8), depth=(1.0, 45.0, 1.0)
        ),
        in_channels=64,
        out_channels=16,
        downsample=8,
        loss_depth_weight=0.05,
    ),
    # multiples of 16 channels: other widths are several times slower on a CPU
    img_bev_encoder_backbone=dict(
        type='radocc_plugin.CustomResNet3D',
        numC_input=16,
        num_layer=(0, 1, 1),
        num_channels=(16, 32, 64),
        stride=(1, 2, 2),
    ),
    img_bev_encoder_neck=dict(type='radocc_plugin.LSSFPN3D', in_channels=112, out_channels=16),
    occ_head=dict(
        type='radocc_plugin.BEVOCCHead3D',
        in_dim=16,
        out_dim=16,
        upsample=2,
        # Inverse square root of the share of each class among the visible
        # voxels of the synthetic world, of which 94 % are free.
        class_weight=[
            38.5,
            24.1,
            27.9,
            16.4,
            10.6,
            27.9,
            29.6,
            24.6,
            36.5,
            16.0,
            18.2,
            3.5,
            14.0,
            8.6,
            8.6,
            6.2,
            7.8,
            0.6,
        ],
    ),
)
