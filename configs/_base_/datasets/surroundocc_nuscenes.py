# SurroundOcc-nuScenes: 0.5 m voxels within 50 m, in the frame of the LiDAR;
# no visibility masks. Labels in data/nuscenes/nuscenes_occ.
#   python tools/create_data.py occ3d-nuscenes --data-root data/nuscenes \
#       --version v1.0-trainval --labels surroundocc
_base_ = './occ3d_nuscenes.py'
dataset_type = 'radocc_plugin.SurroundOccDataset'
load_occ = dict(type='radocc_plugin.LoadSurroundOcc')
depth_maps = dict(type='radocc_plugin.PointsToDepthMaps', depth_range=(1.0, 60.0))

train_pipeline = [
    _base_.load_images,
    _base_.augment_images,
    load_occ,
    _base_.augment_bev,
    _base_.pack,
]
teacher_train_pipeline = [
    _base_.load_images,
    _base_.augment_images,
    _base_.load_points,
    load_occ,
    _base_.augment_bev,
    depth_maps,
    _base_.pack,
]
radocc_train_pipeline = [*teacher_train_pipeline[:-1], _base_.load_segments, _base_.pack]
test_pipeline = [*_base_.test_pipeline[:-2], load_occ, _base_.pack]
teacher_test_pipeline = [*test_pipeline[:-2], _base_.load_points, load_occ, depth_maps, _base_.pack]

train_dataloader = dict(dataset=dict(type=dataset_type, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type=dataset_type, pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(_delete_=True, type='radocc_plugin.OccMetric', mask='none')
test_evaluator = val_evaluator
