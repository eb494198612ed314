_base_ = [
    '../radocc/radocc_bevdet-occ_tiny-near-12-labels_1xb2-1600i_synthetic.py',
    '../_base_/radocc/paper.py',
]
model = dict(losses=dict(_delete_=True, **_base_.paper.losses))
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.train_pipeline[:-1], _base_.load_segments, _base_.pack])
)
