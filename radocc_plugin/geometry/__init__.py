from radocc_plugin.geometry.cameras import VIEWS, Cameras, camera_views, input_cameras
from radocc_plugin.geometry.depth_bins import DepthBins
from radocc_plugin.geometry.frames import invert, to_homogeneous, transform_points, upload
from radocc_plugin.geometry.ray_samplers import RAY_SAMPLERS, draw_rays, lidar_pixels
from radocc_plugin.geometry.rays import Rays, pixel_centres, rays_of_pixels, rays_through
from radocc_plugin.geometry.traversal import RayCrossings, traverse
from radocc_plugin.geometry.voxel_grid import VoxelGrid

__all__ = [
    'Cameras',
    'DepthBins',
    'RAY_SAMPLERS',
    'RayCrossings',
    'Rays',
    'VIEWS',
    'VoxelGrid',
    'camera_views',
    'draw_rays',
    'input_cameras',
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
