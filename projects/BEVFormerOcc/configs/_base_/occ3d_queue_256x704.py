# Images, augmentation, ego frame and depth maps of the BEVDet family, whose
# teachers fit; a queue of four frames in training, whole scenes in the order
# of time at test. Motion comes from poses: no CAN bus expansion is needed.
_base_ = '../../../../configs/_base_/datasets/occ3d_nuscenes_bevdet.py'
can_bus = 'poses'
train_dataloader = dict(dataset=dict(queue_length=4, can_bus=can_bus))
val_dataloader = dict(
    sampler=dict(_delete_=True, type='radocc_plugin.SceneSampler'), dataset=dict(can_bus=can_bus)
)
test_dataloader = val_dataloader
