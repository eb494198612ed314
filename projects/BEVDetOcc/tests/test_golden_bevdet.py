"""Parity with the published modules; sizes, seeds, tolerances of the cases."""
import pytest
import torch
from torch import nn

from projects.BEVDetOcc.bevdet_occ import (BEVOCCHead3D, CustomFPN,
                                           CustomResNet3D, LSSFPN3D,
                                           LSSViewTransformer,
                                           LSSViewTransformerBEVDepth,
                                           ViewGeometry)
from projects.BEVDetOcc.bevdet_occ.depth import one_hot_depth
from projects.BEVDetOcc.bevdet_occ.view_transformer import assign_voxels
from radocc_plugin.losses.occupancy import masked_cross_entropy
from radocc_plugin.registry import MODELS
