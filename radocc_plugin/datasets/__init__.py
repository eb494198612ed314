from radocc_plugin.datasets.cbgs import CBGSDataset
from radocc_plugin.datasets.occ3d_nuscenes import Occ3DNuScenesDataset
from radocc_plugin.datasets.samplers import (LabelledUnlabelledSampler,
                                             SceneSampler, StreamBatchSampler)
from radocc_plugin.datasets.transforms import (
    AugmentBEV, AugmentMultiViewImages, DistortMultiViewImages,
    LoadLidarPoints, LoadLidarSweeps, LoadMultiViewImages, LoadOcc3D,
    LoadSegments, PackOccInputs, PointsToDepthMaps, TeacherPipeline)

__all__ = [
    'AugmentBEV', 'AugmentMultiViewImages', 'CBGSDataset',
    'DistortMultiViewImages', 'LabelledUnlabelledSampler', 'LoadLidarPoints',
    'LoadLidarSweeps', 'LoadMultiViewImages', 'LoadOcc3D', 'LoadSegments',
    'Occ3DNuScenesDataset', 'PackOccInputs', 'PointsToDepthMaps',
    'SceneSampler', 'StreamBatchSampler', 'TeacherPipeline'
]
