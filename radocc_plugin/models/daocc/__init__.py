from radocc_plugin.models.daocc.camera_branch import BEVTransform, GeneralizedLSSFPN
from radocc_plugin.models.daocc.detector import DAOcc
from radocc_plugin.models.daocc.geometry import FusionGeometry
from radocc_plugin.models.daocc.occ_head import DAOccHead
from radocc_plugin.models.daocc.sparse_encoder import SparseBEVEncoder
from radocc_plugin.models.daocc.voxels import HardVoxelMean

__all__ = [
    'BEVTransform',
    'DAOcc',
    'DAOccHead',
    'FusionGeometry',
    'GeneralizedLSSFPN',
    'HardVoxelMean',
    'SparseBEVEncoder',
]
