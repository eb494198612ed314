from radocc_plugin.datasets.transforms.bev import AugmentBEV
from radocc_plugin.datasets.transforms.boxes import LoadDetectionBoxes
from radocc_plugin.datasets.transforms.images import (
    AugmentMultiViewImages,
    DistortMultiViewImages,
    LoadMultiViewImages,
    ResizeMultiViewImages,
)
from radocc_plugin.datasets.transforms.labels import (
    LoadLabels,
    LoadOcc3D,
    LoadOcc3DWaymo,
    LoadSegments,
    LoadSurroundOcc,
)
from radocc_plugin.datasets.transforms.lidar import LoadLidarPoints, PointsToDepthMaps
from radocc_plugin.datasets.transforms.packing import PackOccInputs
from radocc_plugin.datasets.transforms.sweeps import LoadLidarSweeps
from radocc_plugin.datasets.transforms.teacher import TeacherPipeline

__all__ = [
    'AugmentBEV',
    'AugmentMultiViewImages',
    'DistortMultiViewImages',
    'LoadDetectionBoxes',
    'LoadLabels',
    'LoadLidarPoints',
    'LoadLidarSweeps',
    'LoadMultiViewImages',
    'LoadOcc3D',
    'LoadOcc3DWaymo',
    'LoadSegments',
    'LoadSurroundOcc',
    'PackOccInputs',
    'PointsToDepthMaps',
    'ResizeMultiViewImages',
    'TeacherPipeline',
]
