_base_ = ['../radocc/radocc_bevdet-occ_r50-256x704_8xb4-24e_occ3d.py', '../_base_/radocc/paper.py']
model = dict(renderer=_base_.paper.renderer, losses=dict(_delete_=True, **_base_.paper.losses))
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.radocc_train_pipeline[:-1], _base_.load_segments, _base_.pack])
)
