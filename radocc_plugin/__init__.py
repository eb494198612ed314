"""RadOcc: rendering-assisted distillation for 3D occupancy on MMEngine."""

from radocc_plugin import mmcv_lite
from radocc_plugin.version import __version__

__all__ = ['__version__']

mmcv_lite.stand_in()
