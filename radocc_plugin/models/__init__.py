"""Students and teachers; importing this package registers them.

Needs mmcv, mmdet and mmdet3d; no other part of ``radocc_plugin`` imports it.
"""

from radocc_plugin.models import bevdet, bevformer, daocc, fbocc, lift_splat, occ_teacher

__all__ = ['bevdet', 'bevformer', 'daocc', 'fbocc', 'lift_splat', 'occ_teacher']
