# For BEVFormer students: full images, a queue of four frames in training,
# whole scenes in the order of time at test. Needs the CAN bus expansion
# (docs/data.md); without it, can_bus='poses'.
_base_ = './occ3d_nuscenes.py'
input_size = (900, 1600)
can_bus = 'measured'
# As published: weights tell the cameras apart by their places.
cams = (
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_FRONT_LEFT',
    'CAM_BACK',
    'CAM_BACK_LEFT',
    'CAM_BACK_RIGHT',
)

train_pipeline = [
    _base_.load_images,
    dict(type='radocc_plugin.DistortMultiViewImages'),
    _base_.load_occ,
    _base_.pack,
]
teacher_train_pipeline = [*train_pipeline[:-2], _base_.load_points, _base_.load_occ, _base_.pack]
radocc_train_pipeline = teacher_train_pipeline
test_pipeline = [_base_.load_images, _base_.load_occ, _base_.pack]
teacher_test_pipeline = [_base_.load_images, _base_.load_points, _base_.load_occ, _base_.pack]

train_dataloader = dict(
    batch_size=1, dataset=dict(cams=cams, pipeline=train_pipeline, queue_length=4, can_bus=can_bus)
)
val_dataloader = dict(
    sampler=dict(_delete_=True, type='radocc_plugin.SceneSampler'),
    dataset=dict(cams=cams, pipeline=test_pipeline, can_bus=can_bus),
)
test_dataloader = val_dataloader
