# Labels of 12 of 360 keyframes; the student sees those only.
_base_ = './bevdet-occ_tiny-near_1xb1-1600i_synthetic.py'
train_dataloader = dict(
    batch_size=2,
    sampler=dict(
        _delete_=True,
        type='radocc_plugin.LabelledUnlabelledSampler',
        labelled=1,
        unlabelled=0,
        repeats=100,  # epochs of 6 steps would mostly wait for their loader
    ),
    dataset=dict(label_every=30, sweeps_per_keyframe=0),
)
