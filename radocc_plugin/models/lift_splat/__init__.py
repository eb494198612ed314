"""Lift-splat parts that several families share."""

from radocc_plugin.models.lift_splat.bev_pool import bev_pool
from radocc_plugin.models.lift_splat.conv3d import Conv3d
from radocc_plugin.models.lift_splat.depth import DepthBins
from radocc_plugin.models.lift_splat.view_geometry import ViewGeometry
from radocc_plugin.models.lift_splat.view_transformer import (
    LSSViewTransformer,
    LSSViewTransformerBEVDepth,
    LSSViewTransformerBEVStereo,
)

__all__ = [
    'Conv3d',
    'DepthBins',
    'LSSViewTransformer',
    'LSSViewTransformerBEVDepth',
    'LSSViewTransformerBEVStereo',
    'ViewGeometry',
    'bev_pool',
]
