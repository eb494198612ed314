_base_ = [
    '../../projects/BEVDetOcc/configs/bevdet-occ_r50-640x960_8xb4-24e_waymo.py',
    '../_base_/radocc/fusion_teacher_waymo.py',
]
model = dict(
    _delete_=True, type='radocc_plugin.RadOccDistiller', student=_base_.model, **_base_.radocc
)
train_dataloader = dict(dataset=dict(pipeline=_base_.radocc_train_pipeline))
