# The LiDAR-only teacher in the ego frame of the LiDAR sweep, which is that of
# the labels, for students that see the world in it (BEVFormer-Occ).
_base_ = './occ-teacher-lidar_voxel005_8xb4-24e_occ3d.py'
key_ego = 'lidar'
load_points = dict(type='radocc_plugin.LoadLidarPoints', num_sweeps=9)
teacher_train_pipeline = [
    _base_.load_images,
    _base_.augment_images,
    load_points,
    _base_.load_occ,
    _base_.augment_bev,
    _base_.pack,
]
teacher_test_pipeline = [*_base_.test_pipeline[:-2], load_points, _base_.load_occ, _base_.pack]
train_dataloader = dict(dataset=dict(key_ego=key_ego, pipeline=teacher_train_pipeline))
val_dataloader = dict(dataset=dict(key_ego=key_ego, pipeline=teacher_test_pipeline))
test_dataloader = val_dataloader
