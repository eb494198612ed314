_base_ = '../../BEVDetOcc/configs/bevdet-occ_tiny-near_1xb1-1600i_synthetic.py'
custom_imports = dict(imports=['radocc_plugin.models'])
model = dict(
    type='radocc_plugin.OccTeacher',
    pts_voxel_encoder=dict(
        type='radocc_plugin.VoxelMean', point_cloud_range=_base_.point_cloud_range, voxel_size=0.4
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
max_iters = 1200
param_scheduler = [dict(type='OneCycleLR', eta_max=4e-3, total_steps=max_iters, by_epoch=False)]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
