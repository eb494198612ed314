# The fusion teacher in FB-OCC's frames: the ego of the front camera, turned,
# and its depths. One that never saw turned frames teaches worse in them.
_base_ = '../../OccTeacher/configs/occ-teacher-fusion_r50-256x704_8xb4-24e_occ3d.py'
key_ego = 'CAM_FRONT'
augment_bev = dict(_base_.augment_bev, rotate=(-22.5, 22.5))
depth_maps = dict(_base_.depth_maps, depth_range=(2.0, 42.0))
teacher_train_pipeline = [
    _base_.load_images,
    _base_.augment_images,
    _base_.load_points,
    _base_.load_occ,
    augment_bev,
    depth_maps,
    _base_.pack,
]
teacher_test_pipeline = [*_base_.teacher_test_pipeline[:-2], depth_maps, _base_.pack]

train_dataloader = dict(dataset=dict(pipeline=teacher_train_pipeline, key_ego=key_ego))
val_dataloader = dict(dataset=dict(pipeline=teacher_test_pipeline, key_ego=key_ego))
test_dataloader = val_dataloader
