_base_ = [
    './_base_/bevdet-occ_tiny-4d-stereo.py',
    '../../../configs/_base_/datasets/synthetic.py',
    '../../../configs/_base_/schedules/tiny.py',
    '../../../configs/_base_/default_runtime.py',
]
adjacent = (1, 2)
train_dataloader = dict(dataset=dict(adjacent=adjacent))
val_dataloader = dict(dataset=dict(adjacent=adjacent))
test_dataloader = val_dataloader
