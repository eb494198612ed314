from .fusion import ConvFuser3D, DepthFuser
from .lidar import SparseVoxelMean, VoxelMean
from .sparse_encoder import OccSparseEncoder
from .teacher import OccTeacher

__all__ = [
    'ConvFuser3D', 'DepthFuser', 'OccSparseEncoder', 'OccTeacher',
    'SparseVoxelMean', 'VoxelMean'
]
