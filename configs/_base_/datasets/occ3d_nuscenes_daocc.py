# For DAOcc: ten sweeps in the LiDAR frame, cameras in the order in which they
# win a voxel, class-balanced training, flips only.
_base_ = './occ3d_nuscenes.py'
cams = (
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_FRONT_LEFT',
    'CAM_BACK',
    'CAM_BACK_LEFT',
    'CAM_BACK_RIGHT',
)
# Published runs draw nine of the ten sweeps before the keyframe at random, at
# test too: draw='random'.
load_sweeps = dict(
    type='radocc_plugin.LoadLidarSweeps',
    num_sweeps=9,
    point_cloud_range=(-54.0, -54.0, -5.0, 54.0, 54.0, 3.0),
)

train_pipeline = [
    _base_.load_images,
    _base_.augment_images,
    dict(load_sweeps, draw='random', shuffle=True),
    _base_.load_occ,
    _base_.augment_bev,
    _base_.pack,
]
test_pipeline = [*_base_.test_pipeline[:-2], load_sweeps, _base_.load_occ, _base_.pack]

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='radocc_plugin.CBGSDataset',
        dataset=dict(
            type=_base_.dataset_type,
            data_root=_base_.data_root,
            ann_file='radocc_infos_train.pkl',
            cams=cams,
            pipeline=train_pipeline,
        ),
    )
)
val_dataloader = dict(dataset=dict(cams=cams, pipeline=test_pipeline))
test_dataloader = val_dataloader
