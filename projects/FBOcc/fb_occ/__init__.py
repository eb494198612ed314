from .attention import DepthAwareCrossAttention
from .backward_projection import BackwardProjection
from .bev_encoder import FPN3D, ResNet3D
from .detector import FBOcc
from .forward_projection import ForwardProjection
from .history import Memory, StreamState
from .hooks import HistoryScheduleHook
from .occ_head import FBOccHead

__all__ = [
    'BackwardProjection', 'DepthAwareCrossAttention', 'FBOcc', 'FBOccHead',
    'FPN3D', 'ForwardProjection', 'HistoryScheduleHook', 'Memory', 'ResNet3D',
    'StreamState'
]
