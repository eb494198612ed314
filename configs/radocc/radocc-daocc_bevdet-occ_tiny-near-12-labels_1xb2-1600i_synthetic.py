# One labelled and one unlabelled frame a step.
_base_ = [
    '../../projects/BEVDetOcc/configs/bevdet-occ_tiny-near-12-labels_1xb2-1600i_synthetic.py',
    '../_base_/radocc/daocc_teacher_near.py',
]
model = dict(
    _delete_=True, type='radocc_plugin.RadOccDistiller', student=_base_.model, **_base_.radocc
)
train_dataloader = dict(
    sampler=dict(unlabelled=1),
    dataset=dict(
        pipeline=[
            _base_.load_images,
            _base_.teacher_inputs,
            *_base_.train_pipeline[1:-1],
            _base_.pack,
        ]
    ),
)
