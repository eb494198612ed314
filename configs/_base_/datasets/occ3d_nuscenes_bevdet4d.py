# For BEVDet4D-stereo students: the frame before, one more as reference of the
# cost volume, and LiDAR depth maps as published. Long-term variant:
# adjacent=tuple(range(1, 10)).
_base_ = './occ3d_nuscenes_bevdet.py'
adjacent = (1, 2)

# Past sweeps are in no depth map.
train_pipeline = [
    _base_.load_images,
    _base_.augment_images,
    dict(_base_.load_points, num_sweeps=0),
    _base_.load_occ,
    _base_.augment_bev,
    _base_.depth_maps,
    _base_.pack,
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline, adjacent=adjacent))
val_dataloader = dict(dataset=dict(adjacent=adjacent))
test_dataloader = val_dataloader
