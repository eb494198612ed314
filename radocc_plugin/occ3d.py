"""The label space of Occ3D-nuScenes: classes, colours and grid."""

from radocc_plugin.label_space import LabelSpace

CLASSES = (
    'others',
    'barrier',
    'bicycle',
    'bus',
    'car',
    'construction_vehicle',
    'motorcycle',
    'pedestrian',
    'traffic_cone',
    'trailer',
    'truck',
    'driveable_surface',
    'other_flat',
    'sidewalk',
    'terrain',
    'manmade',
    'vegetation',
    'free',
)
FREE = 17
NUM_CLASSES = len(CLASSES)

# RGB in [0, 255]; free is white.
PALETTE = (
    (90, 90, 90),
    (255, 120, 50),
    (255, 192, 203),
    (255, 230, 40),
    (30, 120, 245),
    (0, 220, 220),
    (200, 180, 0),
    (230, 20, 30),
    (255, 150, 20),
    (150, 80, 20),
    (160, 32, 240),
    (200, 60, 200),
    (139, 137, 137),
    (90, 20, 90),
    (140, 220, 80),
    (190, 190, 180),
    (20, 150, 20),
    (255, 255, 255),
)

# Ego frame, metres: x forward, y left, z up.
POINT_CLOUD_RANGE = (-40.0, -40.0, -1.0, 40.0, 40.0, 5.4)
VOXEL_SIZE = 0.4
GRID_SHAPE = (200, 200, 16)

# Their means are steadier than mIoU, which one rare class can move.
GROUPS = dict(
    surfaces=CLASSES[11:17],
    vehicles=('bus', 'car', 'construction_vehicle', 'trailer', 'truck'),
    small_objects=('barrier', 'bicycle', 'motorcycle', 'pedestrian', 'traffic_cone'),
)

OCC3D_NUSCENES = LabelSpace(
    'Occ3D-nuScenes', CLASSES, PALETTE, POINT_CLOUD_RANGE, VOXEL_SIZE, groups=GROUPS
)

CAMERAS = (
    'CAM_FRONT_LEFT',
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_BACK_LEFT',
    'CAM_BACK',
    'CAM_BACK_RIGHT',
)

# nuScenes-lidarseg index (0..31) -> Occ3D class, as in the official 16-class
# grouping; everything that grouping leaves out is 'others' (0).
LIDARSEG_TO_OCC3D = (
    0,
    0,
    7,
    7,
    7,
    0,
    7,
    0,
    0,
    1,
    0,
    0,
    8,
    0,
    2,
    3,
    3,
    4,
    5,
    0,
    0,
    6,
    9,
    10,
    11,
    12,
    13,
    14,
    15,
    0,
    16,
    0,
)
