_base_ = [
    '../../projects/FBOcc/configs/fbocc_tiny-near_1xb1-1600i_synthetic.py',
    '../_base_/radocc/fusion_teacher_near.py',
]
model = dict(
    _delete_=True, type='radocc_plugin.RadOccDistiller', student=_base_.model, **_base_.radocc
)
