from radocc_plugin.rendering.density import (DENSITIES, density_from_labels,
                                             density_from_logits)
from radocc_plugin.rendering.functional import (accumulate, expected_depth,
                                                segment_transmittance,
                                                sum_rays, termination)
from radocc_plugin.rendering.renderer import (OccRenderer, Render,
                                              RenderGeometry)
from radocc_plugin.rendering.sweep_check import sweep_depth_difference

__all__ = [
    'DENSITIES', 'OccRenderer', 'Render', 'RenderGeometry', 'accumulate',
    'density_from_labels', 'density_from_logits', 'expected_depth',
    'segment_transmittance', 'sum_rays', 'sweep_depth_difference',
    'termination'
]
