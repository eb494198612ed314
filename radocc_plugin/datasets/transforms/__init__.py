from radocc_plugin.datasets.transforms.bev import AugmentBEV
from radocc_plugin.datasets.transforms.images import (AugmentMultiViewImages,
                                                      DistortMultiViewImages,
                                                      LoadMultiViewImages,
                                                      ResizeMultiViewImages)
from radocc_plugin.datasets.transforms.labels import LoadOcc3D, LoadSegments
from radocc_plugin.datasets.transforms.lidar import (LoadLidarPoints,
                                                     PointsToDepthMaps)
from radocc_plugin.datasets.transforms.packing import PackOccInputs

__all__ = [
    'AugmentBEV', 'AugmentMultiViewImages', 'DistortMultiViewImages',
    'LoadLidarPoints', 'LoadMultiViewImages', 'LoadOcc3D', 'LoadSegments',
    'PackOccInputs', 'PointsToDepthMaps', 'ResizeMultiViewImages'
]
