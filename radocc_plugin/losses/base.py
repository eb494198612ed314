"""The call that all distillation losses share.

B batch, N cameras, X Y Z grid, C classes or channels.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Callable, Dict, Iterable, Mapping, Optional, Sequence, Tuple

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from radocc_plugin.geometry import Cameras, Rays
from radocc_plugin.label_space import UNLABELLED
from radocc_plugin.losses.common import check_choice, seeded_generator
from radocc_plugin.rendering import Render, VoxelLight

COMPARED = ('render', 'occ_logits', 'features', 'outputs')
# Where a data sample keeps a field of the batch.
SAMPLE_FIELD = dict(
    segments=('segments',), gt_occ=('gt_occ', 'semantics'), mask_camera=('gt_occ', 'mask_camera')
)
# What to do about a missing field of the batch.
REMEDY = dict(
    segments='add radocc_plugin.LoadSegments to the training pipeline and '
    'make the maps with tools/generate_segments.py',
    gt_occ='the training pipeline must load data_sample.gt_occ.semantics',
    mask_camera='the training pipeline must load data_sample.gt_occ.mask_camera',
    light="only RadOccDistiller's renderer finds it",
    teacher_view='only RadOccDistiller provides it',
    generator='pass a CPU torch.Generator of its own, never the global one',
)


def compared_part(loss: nn.Module) -> str:
    """What a loss compares: its ``compares``, a render if it has none."""
    return getattr(loss, 'compares', 'render')


def needs_of(loss: nn.Module) -> Tuple[str, ...]:
    """Fields of ``DistillBatch`` that a loss needs, none if it is silent."""
    return getattr(loss, 'needs', ())


@dataclass(frozen=True)
class ModelOutputs:
    """What one model, student or teacher, says about a batch.

    Args:
        occ_logits: Occupancy logits, (B, X, Y, Z, C).
        features: Intermediate features by name, channels last, such as
            (B, X, Y, Z, C) or (B, X, Y, C).
        render: What the rays see of ``occ_logits``; the same rays for both
            models. None where no loss compares renders.
        class_weight: Weights of the C classes in the cross entropy that the
            model learns from; None for equal ones. Its softmax is that of
            the class frequencies times these.
    """

    occ_logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    render: Optional[Render] = None
    class_weight: Optional[Tuple[float, ...]] = None

    def compared_by(self, loss: nn.Module):
        """The part that ``loss`` compares.

        Raises:
            ValueError: If that part is not there.
        """
        part = compared_part(loss)
        if part != 'features':
            name = 'occ_logits' if part == 'outputs' else part
            if getattr(self, name) is None:
                raise ValueError(
                    f'{type(loss).__name__} compares {name}, which the models did not provide'
                )
            return self if part == 'outputs' else getattr(self, name)
        feature = getattr(loss, 'feature', None)
        if feature is None or feature not in self.features:
            raise ValueError(
                f'{type(loss).__name__}.feature takes the name of a tapped '
                f'feature, one of {sorted(self.features)}, got '
                f'{feature!r}'
            )
        return self.features[feature]


@dataclass(frozen=True)
class TeacherView:
    """The teacher's volume, for a loss that looks along rays of its own.

    Args:
        cameras: Cameras of the network's input images, augmented as those;
            their ``image_size`` is that of the raw images.
        render: Renders the teacher, without gradient.
    """

    cameras: Cameras
    render: Callable[[Rays], Render]


@dataclass(frozen=True)
class DistillBatch:
    """What a distillation loss may know besides the two models' outputs.

    Args:
        segments: Label maps of the raw images at any resolution, 0 = no
            segment, (B, N, h, w).
        gt_occ: Labels, (B, X, Y, Z).
        mask_camera: Voxels that some camera sees, bool, (B, X, Y, Z); those
            that have a label where the benchmark has no such mask.
        generator: CPU generator of the losses' random draws, so that the
            student's random numbers are those of plain training.
        light: Light of the teacher's rays in each voxel.
        teacher_view: What looks at the teacher's volume.
    """

    segments: Optional[Tensor] = None
    gt_occ: Optional[Tensor] = None
    mask_camera: Optional[Tensor] = None
    generator: Optional[torch.Generator] = None
    light: Optional[VoxelLight] = None
    teacher_view: Optional[TeacherView] = None

    @classmethod
    def from_data_samples(
        cls,
        data_samples: Sequence,
        losses: Iterable[nn.Module],
        device: torch.device,
        generator: Optional[torch.Generator] = None,
        needs: Iterable[str] = (),
    ) -> 'DistillBatch':
        """Stacks what some loss, or ``needs``, asks for and every sample
        has."""
        needs = {*needs, *(n for loss in losses for n in needs_of(loss))}
        stacked = {}
        for name in needs & SAMPLE_FIELD.keys():
            values = list(data_samples)
            for part in SAMPLE_FIELD[name]:
                values = [getattr(value, part) for value in values if part in value]
            if len(values) == len(data_samples):
                stacked[name] = torch.stack(values).to(device)
        if 'mask_camera' in needs - stacked.keys() and all(
            _comes_without_mask(sample) for sample in data_samples
        ):
            stacked['mask_camera'] = torch.stack(
                [sample.gt_occ.semantics != UNLABELLED for sample in data_samples]
            ).to(device)
        return cls(
            stacked.get('segments'), stacked.get('gt_occ'), stacked.get('mask_camera'), generator
        )

    def check(self, loss: nn.Module) -> None:
        """Raises a ValueError if a field that ``loss.needs`` is missing."""
        for name in needs_of(loss):
            self.require(name, type(loss).__name__)

    def require(self, name: str, who: str) -> Any:
        """The field ``name``; a ValueError if it is missing."""
        value = getattr(self, name)
        if value is None:
            raise ValueError(f'{who} needs {name}: {REMEDY[name]}')
        return value


def _comes_without_mask(sample) -> bool:
    """Whether a labelled sample is of a benchmark without camera mask."""
    space = sample.metainfo.get('label_space')
    return space is not None and 'camera' not in space.masks and 'gt_occ' in sample


class DistillLoss(BaseModule):
    """Base of the losses between a teacher and a student.

    A loss says what it needs and gets no more::

        loss(student.compared_by(loss), teacher.compared_by(loss), batch=batch)

    Attributes:
        compares: ``'render'``, ``'occ_logits'``, ``'features'`` or
            ``'outputs'`` (all ``ModelOutputs``): what ``forward`` gets of
            each model.
        feature: Name of the compared feature; only for ``'features'``.
        needs: Fields of ``DistillBatch`` that must be there.

    Args:
        loss_weight: Factor of the loss.
        loss_name: Key of the loss in the log, for a second loss of one type.

    Raises:
        ValueError: If ``loss_weight`` or ``loss_name`` is not valid.
    """

    compares: str = 'render'
    feature: Optional[str] = None
    needs: Tuple[str, ...] = ()
    loss_name: str

    def __init__(self, loss_weight: float = 1.0, loss_name: Optional[str] = None) -> None:
        super().__init__()
        if loss_weight < 0:
            raise ValueError(
                f'{type(self).__name__}.loss_weight takes a number >= 0, got {loss_weight}'
            )
        self.loss_weight = loss_weight
        if loss_name is not None:
            self.loss_name = loss_name
            if 'loss' not in loss_name:
                raise ValueError(
                    f'{type(self).__name__}.loss_name must contain "loss", or '
                    f'MMEngine does not optimise it; got {loss_name!r}'
                )

    def set_compared(self, compares: str, feature: str) -> None:
        """Chooses occupancy logits or a named feature.

        Raises:
            ValueError: If ``compares`` is neither.
        """
        check_choice(f'{type(self).__name__}.compares', compares, COMPARED[1:3])
        self.compares = compares
        self.feature = feature if compares == 'features' else None

    def forward(self, student, teacher, batch: DistillBatch) -> Dict[str, Tensor]:
        """Loss dict; gradients reach the student only."""
        raise NotImplementedError


def distill_losses(
    losses: Mapping[str, nn.Module],
    student: ModelOutputs,
    teacher: ModelOutputs,
    batch: DistillBatch,
    factors: Optional[Mapping[str, float]] = None,
) -> Dict[str, Tensor]:
    """Every loss of a config slot in one dict.

    Args:
        losses: The losses by their names in the config.
        student: Outputs of the student.
        teacher: Outputs of the teacher.
        batch: The rest.
        factors: What to multiply a loss by, beside its own weight, by its
            name; 1 where it has none.

    Raises:
        ValueError: If a loss misses an input, or two share a key.
    """
    result: Dict[str, Tensor] = {}
    for name, loss in losses.items():
        batch.check(loss)
        own = batch
        if batch.generator is not None:
            # A stream of its own: one switched off changes no other.
            own = replace(batch, generator=seeded_generator(batch.generator.initial_seed(), name))
        values = loss(student.compared_by(loss), teacher.compared_by(loss), batch=own)
        for key in values.keys() & result.keys():
            raise ValueError(
                f'losses.{name} returns {key!r} as another loss does; set its loss_name'
            )
        factor = (factors or {}).get(name, 1.0)
        result.update({key: factor * value for key, value in values.items()})
    return result
