from radocc_plugin.geometry.cameras import Cameras
from radocc_plugin.geometry.frames import invert, to_homogeneous, transform_points, upload
from radocc_plugin.geometry.ray_samplers import RAY_SAMPLERS, draw_rays, lidar_pixels
from radocc_plugin.geometry.rays import Rays, pixel_centres, rays_of_pixels, rays_through
from radocc_plugin.geometry.traversal import RayCrossings, traverse
from radocc_plugin.geometry.voxel_grid import VoxelGrid

__all__ = [
    'Cameras',
    'RAY_SAMPLERS',
    'RayCrossings',
    'Rays',
    'VoxelGrid',
    'draw_rays',
    'invert',
    'lidar_pixels',
    'pixel_centres',
    'rays_of_pixels',
    'rays_through',
    'to_homogeneous',
    'transform_points',
    'traverse',
    'upload',
]
