# Images at 0.8 of their size; they are padded to 736 x 1280 afterwards.
_base_ = '../../../../configs/_base_/datasets/occ3d_nuscenes_bevformer.py'
input_size = (720, 1280)
resize = dict(
    type='radocc_plugin.AugmentMultiViewImages', input_size=input_size)
train_pipeline, radocc_train_pipeline, test_pipeline = [[
    pipeline[0], resize, *pipeline[1:]
] for pipeline in (_base_.train_pipeline, _base_.radocc_train_pipeline,
                   _base_.test_pipeline)]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
