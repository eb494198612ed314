_base_ = '../../BEVDetOcc/configs/bevdet-occ_r50-256x704_8xb4-24e_openocc.py'
custom_imports = dict(imports=['radocc_plugin.models'])
model = dict(
    type='radocc_plugin.OccTeacher',
    pts_voxel_encoder=dict(
        type='radocc_plugin.SparseVoxelMean',
        point_cloud_range=(-40, -40, -1, 40, 40, 5.4),
        voxel_size=0.05,
    ),
    pts_middle_encoder=dict(
        type='radocc_plugin.OccSparseEncoder',
        in_channels=6,
        out_channels=32,
        encoder_channels=((16, 16, 32), (32, 32, 64), (64, 64, 128), (128, 128)),
    ),
    pts_fusion=dict(
        type='radocc_plugin.ConvFuser3D',
        camera_channels=32,
        lidar_channels=32,
        out_channels=32,
        use_se=True,
    ),
    depth_from_lidar=True,
)

train_dataloader = dict(dataset=dict(pipeline=_base_.teacher_train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.teacher_test_pipeline))
test_dataloader = val_dataloader
