# For the BEVDet family, students and teachers alike. As published, the ego
# frame is that of the first camera in their list, and depth maps take the
# returns from the car itself too. A teacher must see its student's frame and
# depths, so what differs from the base is set here alone.
_base_ = './occ3d_nuscenes.py'
key_ego = 'CAM_FRONT_LEFT'
load_points = dict(
    type='radocc_plugin.LoadLidarPoints', num_sweeps=9, ego_vehicle=(0.0, 0.0, 0.0, 0.0)
)
depth_maps = dict(type='radocc_plugin.PointsToDepthMaps', depth_range=(1.0, 45.0), pixel_centre=0.0)

teacher_train_pipeline = [
    _base_.load_images,
    _base_.augment_images,
    load_points,
    _base_.load_occ,
    _base_.augment_bev,
    depth_maps,
    _base_.pack,
]
radocc_train_pipeline = teacher_train_pipeline
teacher_test_pipeline = [
    *_base_.test_pipeline[:-2],
    load_points,
    _base_.load_occ,
    depth_maps,
    _base_.pack,
]

train_dataloader = dict(dataset=dict(key_ego=key_ego))
val_dataloader = dict(dataset=dict(key_ego=key_ego))
test_dataloader = val_dataloader
