# The synthetic world for models that look back: a queue of three frames in
# training, whole scenes in the order of time at test. It has no CAN bus.
_base_ = '../../../../configs/_base_/datasets/synthetic.py'
can_bus = 'poses'
train_dataloader = dict(dataset=dict(queue_length=3, can_bus=can_bus))
val_dataloader = dict(
    sampler=dict(_delete_=True, type='radocc_plugin.SceneSampler'), dataset=dict(can_bus=can_bus)
)
test_dataloader = val_dataloader
