from radocc_plugin.models.occ_teacher.fusion import ConvFuser3D, DepthFuser
from radocc_plugin.models.occ_teacher.lidar import SparseVoxelMean, VoxelMean
from radocc_plugin.models.occ_teacher.sparse_encoder import OccSparseEncoder
from radocc_plugin.models.occ_teacher.teacher import OccTeacher

__all__ = [
    'ConvFuser3D',
    'DepthFuser',
    'OccSparseEncoder',
    'OccTeacher',
    'SparseVoxelMean',
    'VoxelMean',
]
