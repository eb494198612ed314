from radocc_plugin.geometry.cameras import Cameras
from radocc_plugin.geometry.frames import (invert, to_homogeneous,
                                           transform_points)
from radocc_plugin.geometry.voxel_grid import VoxelGrid

__all__ = [
    'Cameras', 'VoxelGrid', 'invert', 'to_homogeneous', 'transform_points'
]
