# DAOcc with ResNet-50 as published: 0.075 m voxels of the LiDAR frame within
# 54 m, camera and LiDAR meet at 0.6 m, logits on Occ3D's grid.
custom_imports = dict(imports=['radocc_plugin.models'])
lidar_range = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
occ_range = (-40.0, -40.0, -1.0, 40.0, 40.0, 5.4)
model = dict(
    type='radocc_plugin.DAOcc',
    data_preprocessor=dict(type='radocc_plugin.OccDataPreprocessor', non_blocking=True),
    encoders=dict(
        camera=dict(
            backbone=dict(
                type='mmdet.ResNet',
                depth=50,
                out_indices=(1, 2, 3),
                init_cfg=dict(
                    type='Pretrained',
                    # torchvision://resnet50, without the need of torchvision
                    checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth',
                ),
            ),
            neck=dict(
                type='radocc_plugin.GeneralizedLSSFPN',
                in_channels=(512, 1024, 2048),
                out_channels=256,
            ),
            vtransform=dict(
                type='radocc_plugin.BEVTransform',
                point_cloud_range=lidar_range,
                grid_shape=(180, 180, 10),
                in_channels=256,
                out_channels=128,
                version=2,
            ),
        ),
        lidar=dict(
            voxelize=dict(
                type='radocc_plugin.HardVoxelMean',
                point_cloud_range=lidar_range,
                voxel_size=(0.075, 0.075, 0.2),
                round_to_half=True,
            ),
            backbone=dict(type='radocc_plugin.SparseBEVEncoder'),
        ),
    ),
    fuser=dict(in_channels=(1280, 256), out_channels=512),
    decoder=dict(
        backbone=dict(
            type='radocc_plugin.CustomResNet',
            numC_input=512,
            num_channels=(128, 256, 512),
            stride=(1, 1, 2),
        ),
        neck=dict(
            type='radocc_plugin.FPN_LSS',
            in_channels=640,
            out_channels=512,
            scale_factor=2,
            extra_upsample=None,
        ),
    ),
    heads=dict(
        occ=dict(
            type='radocc_plugin.DAOccHead',
            in_dim=128,
            out_dim=128,
            coordinate_transform=dict(
                point_cloud_range=occ_range,
                grid_shape=(200, 200),
                lidar_range=(-54.0, -54.0, 54.0, 54.0),
                in_channels=512,
            ),
        )
    ),
)
