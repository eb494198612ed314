_base_ = [
    './_base_/flashocc_r50-m1.py',
    '../../../configs/_base_/datasets/occ3d_nuscenes_bevdet.py',
    '../../../configs/_base_/schedules/bevdet_24e.py',
    '../../../configs/_base_/default_runtime.py',
]
# Published training starts from the detector's weights (BEVDet, dev2.1).
load_from = 'checkpoints/bevdet-r50-cbgs.pth'
auto_scale_lr = dict(base_batch_size=16)
