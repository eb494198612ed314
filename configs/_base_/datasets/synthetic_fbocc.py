# The synthetic world for FB-OCC students, as occ3d_nuscenes_fbocc.py: every
# slot of a batch streams half a scene, and the ego frame is turned, a little,
# since the teacher has not seen turned frames.
_base_ = './synthetic.py'
augment_bev = dict(
    type='radocc_plugin.AugmentBEV', flip_x_prob=0.5, flip_y_prob=0.5, rotate=(-5.0, 5.0)
)

train_pipeline, radocc_train_pipeline = [
    [augment_bev if step == _base_.augment_bev else step for step in pipeline]
    for pipeline in (_base_.train_pipeline, _base_.radocc_train_pipeline)
]
teacher_train_pipeline = train_pipeline

train_dataloader = dict(
    batch_sampler=dict(type='radocc_plugin.StreamBatchSampler'),
    dataset=dict(pipeline=train_pipeline, sequences_split=2),
)
val_dataloader = dict(
    sampler=dict(_delete_=True, type='radocc_plugin.SceneSampler'), dataset=dict(sequences_split=1)
)
test_dataloader = val_dataloader
