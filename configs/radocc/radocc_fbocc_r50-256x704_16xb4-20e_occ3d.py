_base_ = [
    '../../projects/FBOcc/configs/fbocc_r50-256x704_16xb4-20e_occ3d.py',
    '../_base_/radocc/fusion_teacher_fbocc.py',
]
model = dict(
    _delete_=True,
    type='radocc_plugin.RadOccDistiller',
    student=_base_.model,
    nonfinite='skip',
    **_base_.radocc,
)
train_dataloader = dict(dataset=dict(pipeline=_base_.radocc_train_pipeline))
