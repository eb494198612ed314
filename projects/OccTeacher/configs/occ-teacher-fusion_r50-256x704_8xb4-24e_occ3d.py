# Dense LiDAR branch: ten sweeps in 0.2 m voxels, one stride-2 block to the
# 0.4 m grid. Start the camera part from a student with
#   --cfg-options load_from=<student checkpoint>
_base_ = '../../BEVDetOcc/configs/bevdet-occ_r50-256x704_8xb4-24e_occ3d.py'
custom_imports = dict(imports=['projects.OccTeacher.occ_teacher'])
model = dict(
    type='radocc_plugin.OccTeacher',
    pts_voxel_encoder=dict(
        type='radocc_plugin.VoxelMean',
        point_cloud_range=(-40, -40, -1, 40, 40, 5.4),
        voxel_size=0.2),
    pts_middle_encoder=dict(
        type='radocc_plugin.CustomResNet3D',
        numC_input=6,
        num_layer=(2, ),
        num_channels=(32, ),
        stride=(2, )),
    pts_fusion=dict(
        type='radocc_plugin.ConvFuser3D',
        camera_channels=32,
        lidar_channels=32,
        out_channels=32,
        use_se=True),
    depth_from_lidar=True)

train_dataloader = dict(dataset=dict(pipeline=_base_.teacher_train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.teacher_test_pipeline))
test_dataloader = val_dataloader
