# Images at 0.8 of their size; they are padded to 736 x 1280 afterwards. As
# published, after the colours have been changed.
_base_ = '../../../../configs/_base_/datasets/occ3d_nuscenes_bevformer.py'
input_size = (720, 1280)
resize = dict(type='radocc_plugin.ResizeMultiViewImages', scale=0.8)
train_pipeline, radocc_train_pipeline = [
    [*pipeline[:2], resize, *pipeline[2:]]
    for pipeline in (_base_.train_pipeline, _base_.radocc_train_pipeline)
]
test_pipeline = [_base_.test_pipeline[0], resize, *_base_.test_pipeline[1:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
