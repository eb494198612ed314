from radocc_plugin.losses.occupancy import masked_cross_entropy
from radocc_plugin.losses.rendered_depth import RenderedDepthConsistency
from radocc_plugin.losses.rendered_semantics import (
    RenderedSemanticConsistency, affinity, segment_affinity_distance,
    segment_means, semantic_kl)

__all__ = [
    'RenderedDepthConsistency', 'RenderedSemanticConsistency', 'affinity',
    'masked_cross_entropy', 'segment_affinity_distance', 'segment_means',
    'semantic_kl'
]
