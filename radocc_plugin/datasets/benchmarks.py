"""Datasets of the benchmarks beside Occ3D-nuScenes."""

from typing import List, Sequence

from radocc_plugin import benchmarks
from radocc_plugin.datasets.label_paths import (
    OPENOCC_ROOT,
    SURROUNDOCC_ROOT,
    openocc_path,
    surroundocc_path,
)
from radocc_plugin.datasets.occ3d_nuscenes import Occ3DNuScenesDataset
from radocc_plugin.datasets.waymo_infos import CAMERAS as WAYMO_CAMERAS
from radocc_plugin.registry import DATASETS


@DATASETS.register_module()
class SurroundOccDataset(Occ3DNuScenesDataset):
    """nuScenes keyframes with SurroundOcc's labels, in the LiDAR frame.

    Reads the info files of Occ3D-nuScenes. What ``Occ3DNuScenesDataset``
    calls ego is the LiDAR frame here: ``lidar2ego`` is the identity, and
    cameras, volumes and BEV augmentation are relative to it. The label of the
    sweep ``x.pcd.bin`` is ``<occ_root>/x.pcd.bin.npy``.

    Args:
        occ_root: Folder of the labels, in the data root.
        **kwargs: Of ``Occ3DNuScenesDataset``.
    """

    METAINFO = benchmarks.SURROUNDOCC_NUSCENES.metainfo()
    LABEL_LOADER = 'radocc_plugin.LoadSurroundOcc'

    def __init__(self, occ_root: str = SURROUNDOCC_ROOT, **kwargs) -> None:
        self.occ_root = occ_root
        super().__init__(**kwargs)

    def label_path(self, info: dict) -> str:
        """Label file of a sample of a labelled split, in the data root."""
        return surroundocc_path(info, self.occ_root)


@DATASETS.register_module()
class OpenOccDataset(Occ3DNuScenesDataset):
    """nuScenes keyframes with the labels of OpenOcc v2.

    Reads the info files of Occ3D-nuScenes. Labels are
    ``<occ_root>/<scene>/<token>/labels.npz``; their flow is ignored.

    Args:
        occ_root: Folder of the labels, in the data root.
        **kwargs: Of ``Occ3DNuScenesDataset``.
    """

    METAINFO = benchmarks.OPENOCC_V2.metainfo()

    def __init__(self, occ_root: str = OPENOCC_ROOT, **kwargs) -> None:
        self.occ_root = occ_root
        super().__init__(**kwargs)

    def label_path(self, info: dict) -> str:
        """Label file of a sample of a labelled split, in the data root."""
        return openocc_path(info, self.occ_root)


@DATASETS.register_module()
class Occ3DWaymoDataset(Occ3DNuScenesDataset):
    """Waymo frames with Occ3D labels, of ``create_data.py occ3d-waymo``.

    There are no ``lidar_origins``: the points lie in the vehicle's frame, and
    RayIoU is no metric of this benchmark.

    Args:
        cams: Cameras of a sample and their order.
        **kwargs: Of ``Occ3DNuScenesDataset``.
    """

    METAINFO = benchmarks.OCC3D_WAYMO.metainfo()
    LABEL_LOADER = 'radocc_plugin.LoadOcc3DWaymo'

    def __init__(self, cams: Sequence[str] = WAYMO_CAMERAS, **kwargs) -> None:
        super().__init__(cams=cams, **kwargs)

    def _add_lidar_origins(self, data_list: List[dict]) -> None:
        pass
