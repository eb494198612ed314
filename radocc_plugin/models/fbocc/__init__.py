from radocc_plugin.models.fbocc.attention import DepthAwareCrossAttention
from radocc_plugin.models.fbocc.backward_projection import BackwardProjection
from radocc_plugin.models.fbocc.bev_encoder import FPN3D, ResNet3D
from radocc_plugin.models.fbocc.detector import FBOcc
from radocc_plugin.models.fbocc.forward_projection import ForwardProjection
from radocc_plugin.models.fbocc.history import Memory, StreamState
from radocc_plugin.models.fbocc.hooks import HistoryScheduleHook
from radocc_plugin.models.fbocc.occ_head import FBOccHead

__all__ = [
    'BackwardProjection',
    'DepthAwareCrossAttention',
    'FBOcc',
    'FBOccHead',
    'FPN3D',
    'ForwardProjection',
    'HistoryScheduleHook',
    'Memory',
    'ResNet3D',
    'StreamState',
]
