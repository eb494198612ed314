from radocc_plugin.distillation.cached_teacher import CachedTeacher, to_augmented_frame
from radocc_plugin.distillation.distiller import RadOccDistiller
from radocc_plugin.distillation.label_teacher import LabelTeacher
from radocc_plugin.distillation.schedule import WeightSchedule
from radocc_plugin.distillation.tap import FeatureTap, OccTap, build_tap
from radocc_plugin.distillation.teacher import FrozenTeacher
from radocc_plugin.distillation.teacher_cache import TeacherCache

__all__ = [
    'CachedTeacher',
    'FeatureTap',
    'FrozenTeacher',
    'LabelTeacher',
    'OccTap',
    'RadOccDistiller',
    'TeacherCache',
    'WeightSchedule',
    'build_tap',
    'to_augmented_frame',
]
