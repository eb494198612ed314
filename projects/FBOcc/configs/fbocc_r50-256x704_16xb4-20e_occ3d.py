_base_ = [
    './_base_/fbocc_r50.py',
    '../../../configs/_base_/datasets/occ3d_nuscenes_fbocc.py',
    './_base_/schedule_20e.py',
]
# Published training starts from weights pre-trained for depth (FB-BEV).
load_from = 'checkpoints/r50_256x705_depth_pretrain.pth'
