from .fusion import ConvFuser3D
from .lidar import VoxelMean
from .teacher import OccTeacher

__all__ = ['ConvFuser3D', 'OccTeacher', 'VoxelMean']
