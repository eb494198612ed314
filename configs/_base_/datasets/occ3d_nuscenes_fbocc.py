# For FB-OCC students: every slot of a batch streams half a scene, frame by
# frame; whole scenes in the order of time at test. As published, the ego frame
# is that of the front camera and is turned in training, and depth maps take
# the returns from the car itself too. A teacher must see its student's frame
# and depths.
_base_ = './occ3d_nuscenes.py'
key_ego = 'CAM_FRONT'
load_points = dict(
    type='radocc_plugin.LoadLidarPoints', num_sweeps=9, ego_vehicle=(0.0, 0.0, 0.0, 0.0)
)
augment_bev = dict(
    type='radocc_plugin.AugmentBEV', flip_x_prob=0.5, flip_y_prob=0.5, rotate=(-22.5, 22.5)
)
depth_maps = dict(type='radocc_plugin.PointsToDepthMaps', depth_range=(2.0, 42.0), pixel_centre=0.0)

teacher_train_pipeline = [
    _base_.load_images,
    _base_.augment_images,
    load_points,
    _base_.load_occ,
    augment_bev,
    depth_maps,
    _base_.pack,
]
# Past sweeps are in no depth map.
train_pipeline = [
    dict(load_points, num_sweeps=0) if step == load_points else step
    for step in teacher_train_pipeline
]
radocc_train_pipeline = teacher_train_pipeline
teacher_test_pipeline = [
    *_base_.test_pipeline[:-2],
    load_points,
    _base_.load_occ,
    depth_maps,
    _base_.pack,
]

train_dataloader = dict(
    batch_sampler=dict(type='radocc_plugin.StreamBatchSampler'),
    dataset=dict(pipeline=train_pipeline, key_ego=key_ego, sequences_split=2),
)
val_dataloader = dict(
    sampler=dict(_delete_=True, type='radocc_plugin.SceneSampler'),
    dataset=dict(key_ego=key_ego, sequences_split=1),
)
test_dataloader = val_dataloader
