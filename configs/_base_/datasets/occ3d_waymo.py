# Occ3D-Waymo: three cameras of 1280 x 1920 and two of 886 x 1920 pixels, which
# are padded to one size; points in the frame of the vehicle.
#   python tools/create_data.py occ3d-waymo --data-root data/waymo --interval 5
_base_ = './occ3d_nuscenes.py'
dataset_type = 'radocc_plugin.Occ3DWaymoDataset'
data_root = 'data/waymo'
input_size = (640, 960)

load_images = dict(type='radocc_plugin.LoadMultiViewImages', pad_to=(1280, 1920))
# The area of the nuScenes car is none of this one's.
load_points = dict(
    type='radocc_plugin.LoadLidarPoints', num_sweeps=4, ego_vehicle=(0.0, 0.0, 0.0, 0.0)
)
load_occ = dict(type='radocc_plugin.LoadOcc3DWaymo')
load_segments = dict(type='radocc_plugin.LoadSegments', size=(256, 384))
augment_images = dict(
    type='radocc_plugin.AugmentMultiViewImages',
    input_size=input_size,
    resize=(-0.06, 0.11),
    flip_prob=0.5,
    rotate=(-5.4, 5.4),
)

train_pipeline = [load_images, augment_images, load_occ, _base_.augment_bev, _base_.pack]
teacher_train_pipeline = [
    load_images,
    augment_images,
    load_points,
    load_occ,
    _base_.augment_bev,
    _base_.depth_maps,
    _base_.pack,
]
radocc_train_pipeline = [*teacher_train_pipeline[:-1], load_segments, _base_.pack]
test_pipeline = [
    load_images,
    dict(type='radocc_plugin.AugmentMultiViewImages', input_size=input_size),
    load_occ,
    _base_.pack,
]
teacher_test_pipeline = [*test_pipeline[:-2], load_points, load_occ, _base_.depth_maps, _base_.pack]

train_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, pipeline=train_pipeline)
)
val_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
