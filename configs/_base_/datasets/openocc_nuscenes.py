# OpenOcc v2 (challenge of CVPR 2024): the grid of Occ3D-nuScenes, classes of
# its own, no visibility masks. Labels in data/nuscenes/openocc_v2.
#   python tools/create_data.py occ3d-nuscenes --data-root data/nuscenes \
#       --version v1.0-trainval --labels openocc
_base_ = './occ3d_nuscenes.py'
dataset_type = 'radocc_plugin.OpenOccDataset'
train_dataloader = dict(dataset=dict(type=dataset_type))
val_dataloader = dict(dataset=dict(type=dataset_type))
test_dataloader = val_dataloader

# The benchmark is RayIoU; records take the voxels beside.
val_evaluator = [
    dict(type='radocc_plugin.RayIoU'),
    dict(type='radocc_plugin.OccMetric', mask='none'),
]
test_evaluator = val_evaluator
