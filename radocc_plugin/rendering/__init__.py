from radocc_plugin.rendering.author import author_samples, render_like_author
from radocc_plugin.rendering.backends import BACKENDS, get_backend
from radocc_plugin.rendering.density import (
    DENSITIES,
    LOGIT_DENSITIES,
    density_from_head,
    density_from_labels,
    density_from_logits,
)
from radocc_plugin.rendering.functional import (
    crossing_transmittance,
    depth_in_crossing,
    expected_depth,
    packed_ray_kl,
    sum_rays,
    termination,
)
from radocc_plugin.rendering.ops import (
    ray_kl,
    render,
    render_logits,
    render_logits_pair,
    voxel_light,
    voxel_light_of_logits,
)
from radocc_plugin.rendering.outputs import Render, VoxelLight
from radocc_plugin.rendering.render_geometry import RenderGeometry
from radocc_plugin.rendering.renderer import VolumeRenderer
from radocc_plugin.rendering.sweep_check import sweep_depth_difference

__all__ = [
    'BACKENDS',
    'DENSITIES',
    'LOGIT_DENSITIES',
    'Render',
    'RenderGeometry',
    'VolumeRenderer',
    'VoxelLight',
    'author_samples',
    'crossing_transmittance',
    'density_from_head',
    'density_from_labels',
    'density_from_logits',
    'depth_in_crossing',
    'expected_depth',
    'get_backend',
    'packed_ray_kl',
    'ray_kl',
    'render',
    'render_like_author',
    'render_logits',
    'render_logits_pair',
    'sum_rays',
    'sweep_depth_difference',
    'termination',
    'voxel_light',
    'voxel_light_of_logits',
]
