_base_ = '../../../../configs/_base_/datasets/occ3d_nuscenes_bevdet4d.py'
input_size = (512, 1408)
train_pipeline, radocc_train_pipeline, test_pipeline = [
    [dict(step, input_size=input_size) if 'input_size' in step else step for step in pipeline]
    for pipeline in (_base_.train_pipeline, _base_.radocc_train_pipeline, _base_.test_pipeline)
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
