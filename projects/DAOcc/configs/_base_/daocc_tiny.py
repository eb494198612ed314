# DAOcc for two CPU cores: 0.8 m cells within 24 m, sampled every 0.4 m within
# 20 m.
custom_imports = dict(imports=['radocc_plugin.models'])
lidar_range = (-24.0, -24.0, -5.0, 24.0, 24.0, 3.0)
near_range = (-20.0, -20.0, -1.0, 20.0, 20.0, 5.4)
model = dict(
    type='radocc_plugin.DAOcc',
    data_preprocessor=dict(type='radocc_plugin.OccDataPreprocessor'),
    encoders=dict(
        camera=dict(
            backbone=dict(
                type='mmdet.ResNet',
                depth=18,
                base_channels=16,
                out_indices=(1, 2, 3),
                norm_eval=False,
            ),
            neck=dict(
                type='radocc_plugin.GeneralizedLSSFPN', in_channels=(32, 64, 128), out_channels=32
            ),
            vtransform=dict(
                type='radocc_plugin.BEVTransform',
                point_cloud_range=lidar_range,
                grid_shape=(60, 60, 10),
                in_channels=32,
                out_channels=16,
            ),
        ),
        lidar=dict(
            voxelize=dict(
                type='radocc_plugin.HardVoxelMean',
                point_cloud_range=lidar_range,
                voxel_size=(0.2, 0.2, 0.2),
            ),
            backbone=dict(
                type='radocc_plugin.SparseBEVEncoder',
                output_channels=16,
                encoder_channels=((32,), (32, 32), (32,)),
                encoder_paddings=((1,), (0, 1), (0,)),
            ),
        ),
    ),
    fuser=dict(in_channels=(160, 80), out_channels=64),
    decoder=dict(
        backbone=dict(
            type='radocc_plugin.CustomResNet',
            numC_input=64,
            num_layer=(1, 1, 1),
            num_channels=(32, 64, 64),
            stride=(1, 1, 2),
        ),
        neck=dict(
            type='radocc_plugin.FPN_LSS',
            in_channels=96,
            out_channels=64,
            scale_factor=2,
            extra_upsample=None,
        ),
    ),
    heads=dict(
        occ=dict(
            type='radocc_plugin.DAOccHead',
            in_dim=32,
            out_dim=32,
            coordinate_transform=dict(
                point_cloud_range=near_range,
                grid_shape=(100, 100),
                lidar_range=(-24.0, -24.0, 24.0, 24.0),
                in_channels=64,
            ),
        )
    ),
)
