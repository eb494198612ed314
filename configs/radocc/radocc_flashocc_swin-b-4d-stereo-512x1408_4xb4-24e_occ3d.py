_base_ = [
    '../../projects/FlashOcc/configs/flashocc_swin-b-4d-stereo-512x1408_4xb4-24e_occ3d.py',
    '../_base_/radocc/lidar_teacher_occ3d.py',
]
model = dict(
    _delete_=True, type='radocc_plugin.RadOccDistiller', student=_base_.model, **_base_.radocc
)
train_dataloader = dict(dataset=dict(pipeline=_base_.radocc_train_pipeline))
