from radocc_plugin.datasets.transforms.bev import AugmentBEV
from radocc_plugin.datasets.transforms.images import (AugmentMultiViewImages,
                                                      DistortMultiViewImages,
                                                      LoadMultiViewImages,
                                                      ResizeMultiViewImages)
from radocc_plugin.datasets.transforms.labels import LoadOcc3D, LoadSegments
from radocc_plugin.datasets.transforms.lidar import (LoadLidarPoints,
                                                     PointsToDepthMaps)
from radocc_plugin.datasets.transforms.packing import PackOccInputs
from radocc_plugin.datasets.transforms.sweeps import LoadLidarSweeps
from radocc_plugin.datasets.transforms.teacher import TeacherPipeline

__all__ = [
    'AugmentBEV', 'AugmentMultiViewImages', 'DistortMultiViewImages',
    'LoadLidarPoints', 'LoadLidarSweeps', 'LoadMultiViewImages', 'LoadOcc3D',
    'LoadSegments', 'PackOccInputs', 'PointsToDepthMaps',
    'ResizeMultiViewImages', 'TeacherPipeline'
]
