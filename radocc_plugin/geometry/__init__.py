from radocc_plugin.geometry.cameras import Cameras
from radocc_plugin.geometry.frames import (invert, to_homogeneous,
                                           transform_points)
from radocc_plugin.geometry.rays import (Rays, camera_rays, pixel_centres,
                                         rays_through)
from radocc_plugin.geometry.traversal import RaySegments, traverse
from radocc_plugin.geometry.voxel_grid import VoxelGrid

__all__ = [
    'Cameras', 'RaySegments', 'Rays', 'VoxelGrid', 'camera_rays', 'invert',
    'pixel_centres', 'rays_through', 'to_homogeneous', 'transform_points',
    'traverse'
]
