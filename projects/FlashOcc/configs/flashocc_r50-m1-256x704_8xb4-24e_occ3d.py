_base_ = [
    './_base_/flashocc_r50-m1.py',
    '../../../configs/_base_/datasets/occ3d_nuscenes_bevdet.py',
    '../../../configs/_base_/schedules/bevdet_24e.py',
    '../../../configs/_base_/default_runtime.py',
]
