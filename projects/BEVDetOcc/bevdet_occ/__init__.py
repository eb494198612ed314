from .bev_encoder import CustomResNet3D, LSSFPN3D
from .bev_pool import bev_pool
from .conv3d import Conv3d
from .detector import BEVDetOcc
from .necks import CustomFPN
from .occ_head import BEVOCCHead3D
from .view_geometry import ViewGeometry
from .view_transformer import LSSViewTransformer, LSSViewTransformerBEVDepth

__all__ = [
    'BEVDetOcc', 'BEVOCCHead3D', 'Conv3d', 'CustomFPN', 'CustomResNet3D',
    'LSSFPN3D', 'LSSViewTransformer', 'LSSViewTransformerBEVDepth',
    'ViewGeometry', 'bev_pool'
]
