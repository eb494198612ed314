from .bev_encoder import LSSFPN3D, CustomResNet, CustomResNet3D
from .bev_pool import bev_pool
from .conv3d import Conv3d
from .detector import BEVDetOcc
from .frames import Frame, split_frames
from .necks import FPN_LSS, CustomFPN
from .occ_head import BEVOCCHead2D, BEVOCCHead3D
from .stereo_backbones import StereoResNet, StereoSwinTransformer
from .view_geometry import ViewGeometry
from .view_transformer import (LSSViewTransformer, LSSViewTransformerBEVDepth,
                               LSSViewTransformerBEVStereo)

__all__ = [
    'BEVDetOcc', 'BEVOCCHead2D', 'BEVOCCHead3D', 'Conv3d', 'CustomFPN',
    'CustomResNet', 'CustomResNet3D', 'FPN_LSS', 'Frame', 'LSSFPN3D',
    'LSSViewTransformer', 'LSSViewTransformerBEVDepth',
    'LSSViewTransformerBEVStereo', 'StereoResNet', 'StereoSwinTransformer',
    'ViewGeometry', 'bev_pool', 'split_frames'
]
