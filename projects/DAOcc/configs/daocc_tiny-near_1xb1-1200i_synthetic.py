# The near field of the synthetic world, 20 m around the ego.
_base_ = [
    './_base_/daocc_tiny.py',
    '../../../configs/_base_/datasets/synthetic_near.py',
    '../../../configs/_base_/schedules/near.py',
]
cams = (
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_FRONT_LEFT',
    'CAM_BACK',
    'CAM_BACK_LEFT',
    'CAM_BACK_RIGHT',
)
load_sweeps = dict(
    type='radocc_plugin.LoadLidarSweeps', num_sweeps=1, point_cloud_range=_base_.lidar_range
)

train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(load_sweeps, shuffle=True),
    _base_.load_occ,
    _base_.augment_bev,
    _base_.pack,
]
test_pipeline = [*_base_.test_pipeline[:2], load_sweeps, _base_.load_occ, _base_.pack]
train_dataloader = dict(dataset=dict(cams=cams, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(cams=cams, pipeline=test_pipeline))
test_dataloader = val_dataloader

max_iters = 1200
param_scheduler = [dict(type='OneCycleLR', eta_max=4e-3, total_steps=max_iters, by_epoch=False)]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
