"""Label spaces of the benchmarks beside Occ3D-nuScenes (``occ3d``)."""

from radocc_plugin import occ3d
from radocc_plugin.label_space import LabelSpace

_COLORS = dict(zip(occ3d.CLASSES, occ3d.PALETTE))

# In the frame of the LiDAR. Class names and their order, range and grid are
# those of surroundocc.py in SurroundOcc @5a407bd; its files count from 1 and
# have 0 for noise, see LoadSurroundOcc.
_SURROUNDOCC_CLASSES = occ3d.CLASSES[1:]
SURROUNDOCC_NUSCENES = LabelSpace(
    'SurroundOcc-nuScenes',
    _SURROUNDOCC_CLASSES,
    [_COLORS[name] for name in _SURROUNDOCC_CLASSES],
    (-50.0, -50.0, -5.0, 50.0, 50.0, 3.0),
    0.5,
    masks=(),
    frame='lidar',
    groups=occ3d.GROUPS,
)

# Ego frame. Class names and their order, range and voxel size are those of
# ray_metrics.py in OccNet @0c403d5 (CVPR 2024 challenge, openocc_v2.1); its
# labels have no visibility masks.
_OPENOCC_CLASSES = (
    'car',
    'truck',
    'trailer',
    'bus',
    'construction_vehicle',
    'bicycle',
    'motorcycle',
    'pedestrian',
    'traffic_cone',
    'barrier',
    'driveable_surface',
    'other_flat',
    'sidewalk',
    'terrain',
    'manmade',
    'vegetation',
    'free',
)
OPENOCC_V2 = LabelSpace(
    'OpenOcc v2',
    _OPENOCC_CLASSES,
    [_COLORS[name] for name in _OPENOCC_CLASSES],
    occ3d.POINT_CLOUD_RANGE,
    occ3d.VOXEL_SIZE,
    masks=(),
    groups=occ3d.GROUPS,
)

# Ego (vehicle) frame. Classes, range and voxel size of README.md in Occ3D
# @1a8630a; free space is 23 in the files, see LoadOcc3DWaymo. The colours are
# ours: those of nuScenes' nearest classes where there are any.
OCC3D_WAYMO = LabelSpace(
    'Occ3D-Waymo',
    (
        'general_object',
        'vehicle',
        'pedestrian',
        'sign',
        'cyclist',
        'traffic_light',
        'pole',
        'construction_cone',
        'bicycle',
        'motorcycle',
        'building',
        'vegetation',
        'tree_trunk',
        'road',
        'walkable',
        'free',
    ),
    (
        _COLORS['others'],
        _COLORS['car'],
        _COLORS['pedestrian'],
        (255, 230, 40),
        (255, 105, 180),
        (0, 220, 220),
        (120, 120, 200),
        _COLORS['traffic_cone'],
        _COLORS['bicycle'],
        _COLORS['motorcycle'],
        _COLORS['manmade'],
        _COLORS['vegetation'],
        (150, 80, 20),
        _COLORS['driveable_surface'],
        _COLORS['sidewalk'],
        _COLORS['free'],
    ),
    occ3d.POINT_CLOUD_RANGE,
    occ3d.VOXEL_SIZE,
    groups=dict(
        surfaces=('building', 'vegetation', 'road', 'walkable'),
        vehicles=('vehicle',),
        small_objects=(
            'pedestrian',
            'sign',
            'cyclist',
            'traffic_light',
            'pole',
            'construction_cone',
            'bicycle',
            'motorcycle',
            'tree_trunk',
        ),
    ),
)
