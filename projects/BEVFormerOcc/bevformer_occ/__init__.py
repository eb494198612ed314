from .attention import (MSDeformableAttention3D, SpatialCrossAttention,
                        TemporalSelfAttention)
from .deformable_attention import deformable_attention
from .detector import BEVFormerOcc
from .encoder import BEVFormerEncoder, BEVFormerLayer, PreviousBEV
from .frames import Frame, current_frame, past_frames
from .grid_mask import GridMask
from .history import History, SceneState, SceneStream
from .occ_head import BEVFormerOccHead
from .transformer import TransformerOcc

__all__ = [
    'BEVFormerEncoder', 'BEVFormerLayer', 'BEVFormerOcc', 'BEVFormerOccHead',
    'Frame', 'GridMask', 'History', 'MSDeformableAttention3D', 'PreviousBEV',
    'SceneState', 'SceneStream', 'SpatialCrossAttention',
    'TemporalSelfAttention', 'TransformerOcc', 'current_frame',
    'deformable_attention', 'past_frames'
]
