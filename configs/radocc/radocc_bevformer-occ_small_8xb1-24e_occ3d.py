_base_ = [
    '../../projects/BEVFormerOcc/configs/bevformer-occ_small_8xb1-24e_occ3d.py',
    '../_base_/radocc/lidar_frame_teacher_occ3d.py',
]
model = dict(
    _delete_=True, type='radocc_plugin.RadOccDistiller', student=_base_.model, **_base_.radocc
)
train_dataloader = dict(dataset=dict(pipeline=_base_.radocc_train_pipeline))
