_base_ = [
    '../../projects/BEVFormerOcc/configs/bevformer-occ_tiny_1xb1-3e_synthetic.py',
    '../_base_/radocc/fusion_teacher_synthetic.py',
]
model = dict(
    _delete_=True, type='radocc_plugin.RadOccDistiller', student=_base_.model, **_base_.radocc
)
train_dataloader = dict(dataset=dict(pipeline=_base_.radocc_train_pipeline))
