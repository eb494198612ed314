from radocc_plugin.models.bevformer.attention import (
    MSDeformableAttention3D,
    SpatialCrossAttention,
    TemporalSelfAttention,
)
from radocc_plugin.models.bevformer.deformable_attention import deformable_attention
from radocc_plugin.models.bevformer.detector import BEVFormerOcc
from radocc_plugin.models.bevformer.encoder import BEVFormerEncoder, BEVFormerLayer, PreviousBEV
from radocc_plugin.models.bevformer.frames import Frame, current_frame, past_frames
from radocc_plugin.models.bevformer.grid_mask import GridMask
from radocc_plugin.models.bevformer.history import History, SceneState, SceneStream
from radocc_plugin.models.bevformer.occ_head import BEVFormerOccHead
from radocc_plugin.models.bevformer.transformer import TransformerOcc

__all__ = [
    'BEVFormerEncoder',
    'BEVFormerLayer',
    'BEVFormerOcc',
    'BEVFormerOccHead',
    'Frame',
    'GridMask',
    'History',
    'MSDeformableAttention3D',
    'PreviousBEV',
    'SceneState',
    'SceneStream',
    'SpatialCrossAttention',
    'TemporalSelfAttention',
    'TransformerOcc',
    'current_frame',
    'deformable_attention',
    'past_frames',
]
