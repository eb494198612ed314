_base_ = [
    '../../../configs/_base_/datasets/occ3d_nuscenes_daocc.py',
    '../../../configs/_base_/schedules/daocc_6e.py',
    '../../../configs/_base_/default_runtime.py',
    './_base_/daocc_r50.py',
]
