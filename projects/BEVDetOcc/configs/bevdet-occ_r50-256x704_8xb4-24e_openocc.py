# The volume of Occ3D-nuScenes with the classes of OpenOcc; no mask.
_base_ = [
    './_base_/bevdet-occ_r50.py',
    '../../../configs/_base_/datasets/openocc_nuscenes.py',
    '../../../configs/_base_/schedules/bevdet_24e.py',
    '../../../configs/_base_/default_runtime.py',
]
model = dict(occ_head=dict(num_classes=17, use_mask=False))
