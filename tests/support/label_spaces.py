"""Label spaces for volumes that are smaller than a benchmark's."""

from dataclasses import replace

from radocc_plugin.label_space import LabelSpace
from radocc_plugin.occ3d import OCC3D_NUSCENES


def small_space(point_cloud_range, voxel_size=0.4, space=OCC3D_NUSCENES) -> LabelSpace:
    """The classes of a benchmark on another grid."""
    return replace(
        space, point_cloud_range=tuple(point_cloud_range), voxel_size=voxel_size, file_range=None
    )
