from radocc_plugin.losses.author_forms import (
    LogitsKDOverX,
    RenderedDepthDoubleSoftmax,
    RenderedSemanticElementwiseKL,
    elementwise_semantic_kl,
    kd_kl_div,
    packed_double_softmax_kl,
)
from radocc_plugin.losses.base import (
    DistillBatch,
    DistillLoss,
    ModelOutputs,
    TeacherView,
    compared_part,
    distill_losses,
    needs_of,
)
from radocc_plugin.losses.common import class_kl
from radocc_plugin.losses.depth_distribution import (
    DepthDistributionConsistency,
    binned_termination,
    depth_distribution_kl,
)
from radocc_plugin.losses.instance_affinity import (
    AffinityAlignment,
    affinity_alignment,
    inter_channel_affinity,
    inter_instance_affinity,
)
from radocc_plugin.losses.lovasz import lovasz_softmax
from radocc_plugin.losses.occupancy import (
    class_balanced_weights,
    focal_loss,
    masked_cross_entropy,
    radial_weights,
    zero_nonfinite,
)
from radocc_plugin.losses.occupancy_modules import (
    OccCrossEntropy,
    OccFocal,
    OccGeoScal,
    OccLovasz,
    OccSemScal,
)
from radocc_plugin.losses.rendered_depth import RenderedDepthConsistency
from radocc_plugin.losses.rendered_maps import (
    RenderedCrossEntropy,
    RenderedDepthMapAlignment,
    depth_map_distance,
    rendered_cross_entropy,
    scale_invariant_log,
)
from radocc_plugin.losses.rendered_semantics import RenderedSemanticConsistency
from radocc_plugin.losses.scene_class_affinity import geo_scal, sem_scal
from radocc_plugin.losses.segment_affinity import (
    affinity,
    group_rays,
    pixel_affinity_distance,
    segment_affinity_distance,
    segment_means,
)
from radocc_plugin.losses.volume_alignments import (
    ChannelWiseDistillation,
    FeatureAlignment,
    LogitsKD,
    channel_wise_kl,
    feature_distance,
    logits_kd,
)
from radocc_plugin.losses.voxel_consistency import (
    RenderedVoxelConsistency,
    regions_of,
    voxel_kl,
    weighted_mean,
    with_class_weights,
)

__all__ = [
    'AffinityAlignment',
    'ChannelWiseDistillation',
    'DepthDistributionConsistency',
    'DistillBatch',
    'DistillLoss',
    'FeatureAlignment',
    'LogitsKD',
    'LogitsKDOverX',
    'ModelOutputs',
    'OccCrossEntropy',
    'OccFocal',
    'OccGeoScal',
    'OccLovasz',
    'OccSemScal',
    'RenderedCrossEntropy',
    'RenderedDepthConsistency',
    'RenderedDepthDoubleSoftmax',
    'RenderedDepthMapAlignment',
    'RenderedSemanticConsistency',
    'RenderedSemanticElementwiseKL',
    'RenderedVoxelConsistency',
    'TeacherView',
    'affinity',
    'affinity_alignment',
    'binned_termination',
    'channel_wise_kl',
    'class_balanced_weights',
    'class_kl',
    'compared_part',
    'depth_distribution_kl',
    'depth_map_distance',
    'distill_losses',
    'elementwise_semantic_kl',
    'feature_distance',
    'focal_loss',
    'geo_scal',
    'group_rays',
    'inter_channel_affinity',
    'inter_instance_affinity',
    'kd_kl_div',
    'logits_kd',
    'lovasz_softmax',
    'masked_cross_entropy',
    'needs_of',
    'packed_double_softmax_kl',
    'pixel_affinity_distance',
    'radial_weights',
    'regions_of',
    'rendered_cross_entropy',
    'scale_invariant_log',
    'segment_affinity_distance',
    'segment_means',
    'sem_scal',
    'voxel_kl',
    'weighted_mean',
    'with_class_weights',
    'zero_nonfinite',
]
