_base_ = [
    '../../projects/BEVDetOcc/configs/bevdet-occ_r50-4d-stereo-256x704_8xb4-24e_occ3d.py',
    '../_base_/radocc/daocc_teacher_occ3d.py',
]
model = dict(
    _delete_=True, type='radocc_plugin.RadOccDistiller', student=_base_.model, **_base_.radocc
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            _base_.load_images,
            _base_.teacher_inputs,
            *_base_.train_pipeline[1:-1],
            _base_.pack,
        ]
    )
)
