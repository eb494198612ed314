from radocc_plugin.datasets.benchmarks import Occ3DWaymoDataset, OpenOccDataset, SurroundOccDataset
from radocc_plugin.datasets.cbgs import CBGSDataset
from radocc_plugin.datasets.occ3d_nuscenes import Occ3DNuScenesDataset
from radocc_plugin.datasets.samplers import (
    LabelledUnlabelledSampler,
    SceneSampler,
    SeededSampler,
    StreamBatchSampler,
)
from radocc_plugin.datasets.transforms import (
    AugmentBEV,
    AugmentMultiViewImages,
    DistortMultiViewImages,
    LoadLabels,
    LoadLidarPoints,
    LoadLidarSweeps,
    LoadMultiViewImages,
    LoadOcc3D,
    LoadOcc3DWaymo,
    LoadSegments,
    LoadSurroundOcc,
    PackOccInputs,
    PointsToDepthMaps,
    TeacherPipeline,
)

__all__ = [
    'AugmentBEV',
    'AugmentMultiViewImages',
    'BENCHMARKS',
    'CBGSDataset',
    'DistortMultiViewImages',
    'LabelledUnlabelledSampler',
    'LoadLabels',
    'LoadLidarPoints',
    'LoadLidarSweeps',
    'LoadMultiViewImages',
    'LoadOcc3D',
    'LoadOcc3DWaymo',
    'LoadSegments',
    'LoadSurroundOcc',
    'Occ3DNuScenesDataset',
    'Occ3DWaymoDataset',
    'OpenOccDataset',
    'PackOccInputs',
    'PointsToDepthMaps',
    'SceneSampler',
    'SeededSampler',
    'StreamBatchSampler',
    'SurroundOccDataset',
    'TeacherPipeline',
]

# Datasets by what tools call them.
BENCHMARKS = {
    'occ3d-nuscenes': Occ3DNuScenesDataset,
    'surroundocc': SurroundOccDataset,
    'openocc': OpenOccDataset,
    'occ3d-waymo': Occ3DWaymoDataset,
}
