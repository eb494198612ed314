from radocc_plugin.rendering.backends import BACKENDS, get_backend
from radocc_plugin.rendering.density import (DENSITIES, LOGIT_DENSITIES,
                                             density_from_head,
                                             density_from_labels,
                                             density_from_logits)
from radocc_plugin.rendering.functional import (depth_in_segment,
                                                expected_depth, packed_ray_kl,
                                                segment_transmittance,
                                                sum_rays, termination)
from radocc_plugin.rendering.geometry import RenderGeometry
from radocc_plugin.rendering.ops import (ray_kl, render, render_logits,
                                         render_logits_pair, voxel_light)
from radocc_plugin.rendering.rendered import Render, VoxelLight
from radocc_plugin.rendering.renderer import VolumeRenderer
from radocc_plugin.rendering.sampled import (Sampling, render_samples,
                                             sampled_ray_kl, sampled_weights)
from radocc_plugin.rendering.sweep_check import sweep_depth_difference

__all__ = [
    'BACKENDS', 'DENSITIES', 'LOGIT_DENSITIES', 'Render', 'RenderGeometry',
    'Sampling', 'VolumeRenderer', 'VoxelLight', 'density_from_head',
    'density_from_labels', 'density_from_logits', 'depth_in_segment',
    'expected_depth', 'get_backend', 'packed_ray_kl', 'ray_kl', 'render',
    'render_logits', 'render_logits_pair', 'render_samples', 'sampled_ray_kl',
    'sampled_weights', 'segment_transmittance', 'sum_rays',
    'sweep_depth_difference', 'termination', 'voxel_light'
]
