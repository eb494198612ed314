# Two frames between keyframes, without labels, beside four keyframes on each
# GPU; the info file is made with --sweeps-per-keyframe 1.
_base_ = './radocc-daocc_bevdet-occ_r50-256x704_8xb4-24e_occ3d.py'
train_dataloader = dict(
    batch_size=6,
    sampler=dict(
        _delete_=True, type='radocc_plugin.LabelledUnlabelledSampler', labelled=4, unlabelled=2
    ),
    dataset=dict(sweeps_per_keyframe=1),
)
# The learning rate is that of the student: as many labels a step.
auto_scale_lr = dict(base_batch_size=48)
