# The real keyframe as a dataset, with the small images of the synthetic world.
#   python tools/create_data.py keyframe \
#       --root-path ../shared/data/nuscenes_frame --out-dir work_dirs/keyframe
_base_ = './synthetic.py'
data_root = 'work_dirs/keyframe'
keyframe = dict(data_root=data_root, ann_file='radocc_infos_val.pkl')

train_dataloader = dict(batch_size=1, dataset=keyframe)
val_dataloader = dict(dataset=keyframe)
test_dataloader = val_dataloader
