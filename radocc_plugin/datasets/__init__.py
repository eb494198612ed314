from radocc_plugin.datasets.occ3d_nuscenes import Occ3DNuScenesDataset
from radocc_plugin.datasets.transforms import (
    AugmentBEV, AugmentMultiViewImages, LoadLidarPoints, LoadMultiViewImages,
    LoadOcc3D, LoadSegments, PackOccInputs, PointsToDepthMaps)

__all__ = [
    'AugmentBEV', 'AugmentMultiViewImages', 'LoadLidarPoints',
    'LoadMultiViewImages', 'LoadOcc3D', 'LoadSegments', 'Occ3DNuScenesDataset',
    'PackOccInputs', 'PointsToDepthMaps'
]
