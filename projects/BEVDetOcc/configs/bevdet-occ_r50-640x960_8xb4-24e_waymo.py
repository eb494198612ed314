# Five cameras of two sizes; the mask of what they see.
_base_ = [
    './_base_/bevdet-occ_r50.py',
    '../../../configs/_base_/datasets/occ3d_waymo.py',
    '../../../configs/_base_/schedules/bevdet_24e.py',
    '../../../configs/_base_/default_runtime.py',
]
model = dict(occ_head=dict(num_classes=16))
