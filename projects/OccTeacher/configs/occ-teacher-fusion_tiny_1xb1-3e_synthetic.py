_base_ = '../../BEVDetOcc/configs/bevdet-occ_tiny_1xb1-3e_synthetic.py'
custom_imports = dict(imports=['radocc_plugin.models'])
model = dict(
    type='radocc_plugin.OccTeacher',
    pts_voxel_encoder=dict(
        type='radocc_plugin.VoxelMean',
        point_cloud_range=(-40, -40, -1, 40, 40, 5.4),
        voxel_size=0.4,
    ),
    pts_middle_encoder=dict(
        type='radocc_plugin.CustomResNet3D',
        numC_input=6,
        num_layer=(1,),
        num_channels=(16,),
        stride=(2,),
    ),
    pts_fusion=dict(
        type='radocc_plugin.ConvFuser3D', camera_channels=16, lidar_channels=16, out_channels=16
    ),
    depth_from_lidar=True,
)

train_dataloader = dict(dataset=dict(pipeline=_base_.teacher_train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.teacher_test_pipeline))
test_dataloader = val_dataloader
