"""The RadOcc wrapper: any occupancy student plus rendered consistency."""
from dataclasses import replace
from typing import Dict, List, Optional, Union

import torch
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from torch import Tensor, nn

from radocc_plugin.distillation.tap import build_tap
from radocc_plugin.distillation.teacher import FrozenTeacher
from radocc_plugin.geometry import Cameras
from radocc_plugin.losses import (DistillBatch, ModelOutputs, compared_part,
                                  distill_losses)
from radocc_plugin.registry import MODELS

STUDENT = 'student.'


@MODELS.register_module()
class RadOccDistiller(BaseModel):
    """Trains a student with RadOcc; everywhere else it is the student.

    In mode ``loss`` the student runs once, its logits are tapped, the frozen
    teacher runs on the same batch, both volumes are rendered along the same
    rays, and the consistency losses join the student's own. Other modes
    return the student's answer. Checkpoints have the keys of the plain
    student and load into it.

    Args:
        student: The student, a config or a built model.
        teacher: Arguments of ``FrozenTeacher``: ``model``, ``checkpoint``,
            ``tap``.
        renderer: Config of the renderer.
        losses: Configs of the consistency losses, by any name.
        student_tap: Where the student's logits come from, see ``OccTap``;
            None for a student that brings its ``occ_tap``.
        seed: Seed of the ray draw. It has a generator of its own, so that
            the student's random numbers are those of plain training.

    Raises:
        ValueError: If the student has no tap, or the volumes disagree.

    RadOcc (AAAI 2024, arXiv 2312.11829).
    """

    def __init__(self,
                 student: Union[dict, nn.Module],
                 teacher: dict,
                 renderer: dict,
                 losses: Dict[str, dict],
                 student_tap: Optional[dict] = None,
                 seed: int = 0) -> None:
        if isinstance(student, dict):
            student = MODELS.build(student)
        super().__init__(data_preprocessor=student.data_preprocessor)
        self.student = student
        self.student_tap = build_tap(student_tap, student, 'student_tap')
        self.teacher = FrozenTeacher(**teacher)
        self.renderer = MODELS.build(renderer)
        self.losses = nn.ModuleDict(
            {name: MODELS.build(loss)
             for name, loss in losses.items()})
        self.seed = seed
        # Checkpoint keys are those of the plain student.
        self._register_state_dict_hook(_strip_student)
        self._register_load_state_dict_pre_hook(_add_student)

    def forward(self,
                inputs: dict,
                data_samples: Optional[list] = None,
                mode: str = 'tensor',
                **kwargs) -> Union[Dict[str, Tensor], List, Tensor]:
        """The student's forward; in mode ``loss`` with RadOcc's losses."""
        if mode != 'loss':
            return self.student(inputs, data_samples, mode=mode, **kwargs)
        with self.student_tap.record(self.student) as outputs:
            losses = self.student(inputs, data_samples, mode='loss', **kwargs)
        student_logits = self.student_tap.logits(outputs)
        teacher_logits = self.teacher.occ_logits(inputs, data_samples,
                                                 student_logits.device)
        losses.update(
            self.consistency(student_logits, teacher_logits, data_samples,
                             inputs.get('points')))
        return losses

    def consistency(self,
                    student_logits: Tensor,
                    teacher_logits: Tensor,
                    data_samples: list,
                    points: Optional[List[Tensor]] = None
                    ) -> Dict[str, Tensor]:
        """Every distillation loss; renders along the same rays if one asks.

        Args:
            student_logits: (B, X, Y, Z, C) in the augmented ego frame.
            teacher_logits: The same of the teacher.
            data_samples: Samples with cameras and ``segments``.
            points: LiDAR points in the augmented ego frame, one cloud a
                sample; only a renderer with ``ray_sampler='lidar'`` needs
                them.
        """
        if student_logits.shape != teacher_logits.shape:
            raise ValueError(
                'occ_logits of the student have shape '
                f'{tuple(student_logits.shape)}, the teacher\'s have '
                f'{tuple(teacher_logits.shape)}; teacher and student must '
                'share grid and classes (see tap.class_order)')
        device = student_logits.device
        generator = self._generator()
        batch = DistillBatch.from_data_samples(
            data_samples, self.losses.values(), device, generator)
        student = ModelOutputs(student_logits)
        teacher = ModelOutputs(teacher_logits)
        if 'render' in map(compared_part, self.losses.values()):
            cameras = Cameras.from_data_samples(data_samples, device)
            geometry = self.renderer.trace(
                cameras,
                student_logits.shape[1:4],
                generator,
                points=points,
                segments=batch.segments)
            with torch.no_grad():
                teacher = replace(
                    teacher, render=self.renderer(teacher_logits, geometry))
            student = replace(
                student, render=self.renderer(student_logits, geometry))
        return distill_losses(self.losses, student, teacher, batch)

    def _generator(self) -> torch.Generator:
        # Seeded by the iteration: a resumed run draws the same rays.
        iteration = MessageHub.get_current_instance().get_info('iter', 0)
        return torch.Generator().manual_seed(self.seed + iteration)


def _strip_student(module, state_dict, prefix, local_metadata) -> None:
    """Turns ``student.x`` into ``x``; what else we own is not saved, for the
    renderer and the losses have no weights."""
    for key in [k for k in state_dict if k.startswith(prefix)]:
        value = state_dict.pop(key)
        name = key[len(prefix):]
        if name.startswith(STUDENT):
            state_dict[prefix + name[len(STUDENT):]] = value


def _add_student(state_dict, prefix, *args) -> None:
    """Turns ``x`` of a student's checkpoint into ``student.x``."""
    for key in [k for k in state_dict if k.startswith(prefix)]:
        value = state_dict.pop(key)
        name = key[len(prefix):]
        state_dict[f'{prefix}{STUDENT}{name}'] = value
        if name.startswith('data_preprocessor.'):
            # Shared by the student and the wrapper.
            state_dict[key] = value
