from radocc_plugin.distillation.distiller import RadOccDistiller
from radocc_plugin.distillation.tap import OccTap, build_tap
from radocc_plugin.distillation.teacher import FrozenTeacher

__all__ = ['FrozenTeacher', 'OccTap', 'RadOccDistiller', 'build_tap']
