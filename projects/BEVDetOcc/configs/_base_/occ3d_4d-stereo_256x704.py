# Occ3D-nuScenes with two earlier keyframes, of which stereo takes the second
# as its reference only, and with depth maps for the depth loss.
_base_ = '../../../../configs/_base_/datasets/occ3d_nuscenes.py'
adjacent = (1, 2)
# only the keyframe's own sweep makes depth maps
load_key_points = dict(type='radocc_plugin.LoadLidarPoints', num_sweeps=0)
depth_maps = dict(type='radocc_plugin.PointsToDepthMaps')

train_pipeline = [
    _base_.load_images, _base_.augment_images, load_key_points,
    _base_.load_occ, _base_.augment_bev, depth_maps, _base_.pack
]
radocc_train_pipeline = [
    _base_.load_images, _base_.augment_images, _base_.load_points,
    _base_.load_occ, _base_.augment_bev, depth_maps, _base_.load_segments,
    _base_.pack
]
train_dataloader = dict(
    dataset=dict(adjacent=adjacent, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(adjacent=adjacent))
test_dataloader = val_dataloader
