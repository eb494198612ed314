from radocc_plugin.models.bevdet.bev_encoder import LSSFPN3D, CustomResNet, CustomResNet3D
from radocc_plugin.models.bevdet.detector import BEVDetOcc
from radocc_plugin.models.bevdet.frames import Frame, split_frames
from radocc_plugin.models.bevdet.necks import FPN_LSS, CustomFPN
from radocc_plugin.models.bevdet.occ_head import BEVOCCHead2D, BEVOCCHead2D_V2, BEVOCCHead3D
from radocc_plugin.models.bevdet.stereo_backbones import StereoResNet, StereoSwinTransformer

__all__ = [
    'BEVDetOcc',
    'BEVOCCHead2D',
    'BEVOCCHead2D_V2',
    'BEVOCCHead3D',
    'CustomFPN',
    'CustomResNet',
    'CustomResNet3D',
    'FPN_LSS',
    'Frame',
    'LSSFPN3D',
    'StereoResNet',
    'StereoSwinTransformer',
    'split_frames',
]
