# Occ3D-nuScenes: six 900x1600 cameras, LiDAR, segments.
#   python tools/create_data.py occ3d-nuscenes --data-root data/nuscenes \
#       --version v1.0-trainval
dataset_type = 'radocc_plugin.Occ3DNuScenesDataset'
data_root = 'data/nuscenes'
input_size = (256, 704)  # height, width

load_images = dict(type='radocc_plugin.LoadMultiViewImages')
load_points = dict(type='radocc_plugin.LoadLidarPoints', num_sweeps=9)
load_occ = dict(type='radocc_plugin.LoadOcc3D')
depth_maps = dict(type='radocc_plugin.PointsToDepthMaps')
augment_bev = dict(type='radocc_plugin.AugmentBEV', flip_x_prob=0.5, flip_y_prob=0.5)
# The affinity of the paper's form (radocc/paper.py) reads them, nothing else.
load_segments = dict(type='radocc_plugin.LoadSegments', size=(225, 400))
pack = dict(type='radocc_plugin.PackOccInputs')

augment_images = dict(
    type='radocc_plugin.AugmentMultiViewImages',
    input_size=input_size,
    resize=(-0.06, 0.11),
    flip_prob=0.5,
    rotate=(-5.4, 5.4),
)

# A student reads no points, neither in training nor at test; what teacher and
# RadOcc load beside draws no random numbers.
train_pipeline = [load_images, augment_images, load_occ, augment_bev, pack]
teacher_train_pipeline = [
    load_images,
    augment_images,
    load_points,
    load_occ,
    augment_bev,
    depth_maps,
    pack,
]
radocc_train_pipeline = teacher_train_pipeline
test_pipeline = [
    load_images,
    dict(type='radocc_plugin.AugmentMultiViewImages', input_size=input_size),
    load_occ,
    pack,
]
teacher_test_pipeline = [*test_pipeline[:-2], load_points, load_occ, depth_maps, pack]

train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='radocc_plugin.SeededSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='radocc_infos_train.pkl',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='radocc_infos_val.pkl',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='radocc_plugin.OccMetric', mask='camera')
test_evaluator = val_evaluator
