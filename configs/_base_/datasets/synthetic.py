# The synthetic nuScenes world: six 225x400 cameras, small network input.
#   python tools/create_synthetic.py --data-root data/synthetic \
#       --image-size 400 225
#   python tools/create_data.py occ3d-nuscenes --data-root data/synthetic \
#       --version v1.0-synthetic
_base_ = './occ3d_nuscenes.py'
data_root = 'data/synthetic'
input_size = (96, 256)
load_points = dict(type='radocc_plugin.LoadLidarPoints', num_sweeps=1)
depth_maps = dict(type='radocc_plugin.PointsToDepthMaps', depth_range=(1.0, 60.0))

# The points of a student's training make the depth maps of its depth loss.
train_pipeline = [
    _base_.load_images,
    dict(
        type='radocc_plugin.AugmentMultiViewImages',
        input_size=input_size,
        resize=(-0.08, 0.16),
        flip_prob=0.5,
        rotate=(-5.4, 5.4),
    ),
    load_points,
    _base_.load_occ,
    _base_.augment_bev,
    depth_maps,
    _base_.pack,
]
teacher_train_pipeline = train_pipeline
# with the segments of the paper's form
radocc_train_pipeline = [*train_pipeline[:-1], _base_.load_segments, _base_.pack]
test_pipeline = [
    _base_.load_images,
    dict(type='radocc_plugin.AugmentMultiViewImages', input_size=input_size),
    _base_.load_occ,
    _base_.pack,
]
teacher_test_pipeline = [*test_pipeline[:-2], load_points, _base_.load_occ, depth_maps, _base_.pack]

train_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=False,
    pin_memory=False,  # trained on CPUs
    # label_every=4: labels on a quarter of the frames
    dataset=dict(data_root=data_root, pipeline=train_pipeline, label_every=1),
)
val_dataloader = dict(
    num_workers=1,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(data_root=data_root, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
