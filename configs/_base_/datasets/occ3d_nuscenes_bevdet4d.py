# For BEVDet4D-stereo students: the frame before, one more as reference of the
# cost volume, and LiDAR depth maps as published. Long-term variant:
# adjacent=tuple(range(1, 10)).
_base_ = './occ3d_nuscenes.py'
frames = dict(key_ego='CAM_FRONT_LEFT', adjacent=(1, 2))
depth_maps = dict(
    type='radocc_plugin.PointsToDepthMaps',
    depth_range=(1.0, 45.0),
    pixel_centre=0.)

train_pipeline = [
    _base_.load_images,
    _base_.augment_images,
    dict(type='radocc_plugin.LoadLidarPoints', ego_vehicle=(0., 0., 0., 0.)),
    _base_.load_occ,
    _base_.augment_bev,
    depth_maps,
    _base_.pack,
]
teacher_train_pipeline = [
    _base_.load_images,
    _base_.augment_images,
    _base_.load_points,
    _base_.load_occ,
    _base_.augment_bev,
    depth_maps,
    _base_.pack,
]
radocc_train_pipeline = [
    *teacher_train_pipeline[:-1], _base_.load_segments, _base_.pack
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **frames))
val_dataloader = dict(dataset=frames)
test_dataloader = val_dataloader
