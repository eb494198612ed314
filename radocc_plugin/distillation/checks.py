"""What a teacher and a student must agree in, and finite numbers."""

import logging
from typing import Iterable, Mapping, Optional, Sequence

import torch
from mmengine.logging import MessageHub, print_log
from torch import Tensor, nn

from radocc_plugin.label_space import LabelSpace
from radocc_plugin.losses import ModelOutputs, compared_part, needs_of

NONFINITE = ('error', 'skip')


def check_choices(field: str, names: Iterable[str], choices: Iterable[str]) -> None:
    """Raises a ValueError unless all ``names`` are among ``choices``."""
    unknown = sorted(set(names) - set(choices))
    if unknown:
        raise ValueError(f'{field} takes names of {sorted(choices)}, got {unknown}')


def check_features(
    losses: Mapping[str, nn.Module],
    student_features: Iterable[str],
    teacher_features: Iterable[str],
) -> None:
    """Raises a ValueError if a loss compares a feature without a tap."""
    for name, loss in losses.items():
        if compared_part(loss) != 'features':
            continue
        for field, taps in (
            ('student_features', student_features),
            ('teacher_features', teacher_features),
        ):
            feature = getattr(loss, 'feature', None)
            if feature is None or feature not in taps:
                raise ValueError(
                    f'losses.{name}.feature takes the name of a tapped '
                    f'feature, got {feature!r}; RadOccDistiller.{field} '
                    f'has {sorted(taps)}'
                )


def check_views(renderer: nn.Module, losses: Mapping[str, nn.Module]) -> None:
    """Raises a ValueError if virtual cameras meet segments, which only real
    images have."""
    views = getattr(renderer, 'views', ('sensor',))
    users = sorted(name for name, loss in losses.items() if 'segments' in needs_of(loss))
    if getattr(renderer, 'ray_sampler', None) == 'segments':
        users.append("renderer.ray_sampler='segments'")
    if users and views != ('sensor',):
        raise ValueError(
            f"renderer.views takes ('sensor',) with {', '.join(users)}, which need the segments "
            f'of real images, got {views}'
        )


def check_volumes(student: Tensor, teacher: Tensor) -> None:
    """Raises a ValueError unless batch, grid and classes agree.

    Args:
        student: Occupancy logits, (B, X, Y, Z, C).
        teacher: The same of the teacher.
    """
    if student.shape == teacher.shape:
        return
    pairs = (
        (
            'classes',
            student.shape[4:],
            teacher.shape[4:],
            'choose them by class_order of student_tap or teacher.tap',
        ),
        (
            'a grid',
            student.shape[1:4],
            teacher.shape[1:4],
            'they must share it; mind the order of axes in tap.layout',
        ),
        (
            'batch size',
            student.shape[:1],
            teacher.shape[:1],
            'mind the order of axes in tap.layout',
        ),
    )
    what, ours, theirs, remedy = next(p for p in pairs if p[1] != p[2])
    raise ValueError(
        f"occ_logits of the student have {what} {tuple(ours)}, the teacher's "
        f'{tuple(theirs)} (shapes {tuple(student.shape)} and '
        f'{tuple(teacher.shape)}): {remedy}'
    )


def check_label_space(
    student: Tensor,
    renderer: nn.Module,
    losses: Mapping[str, nn.Module],
    data_samples: Sequence,
    teacher: Optional[LabelSpace] = None,
) -> None:
    """Raises a ValueError unless all speak of the labels of the samples.

    Args:
        student: Occupancy logits, (B, X, Y, Z, C).
        renderer: Its ``point_cloud_range`` is checked.
        losses: Their ``free_index`` is checked.
        data_samples: With the metainfo ``label_space``; those of datasets
            that give none are not checked.
        teacher: What the teacher was trained on, None if that is unknown.
    """
    for sample in data_samples:
        space = sample.metainfo.get('label_space')
        if space is None:
            continue
        name = f'the label space {space.label_space} of the dataset'
        expected = (*space.shape, space.num_classes)
        if tuple(student.shape[1:]) != expected:
            raise ValueError(
                f'occ_logits of the student have voxels and classes '
                f'{tuple(student.shape[1:])}, {name} has {expected}'
            )
        different = None if teacher is None else teacher.difference(space)
        if teacher is not None and different:
            raise ValueError(
                f'the teacher was trained on {teacher.label_space}, the '
                f'student learns {space.label_space}: {different}'
            )
        extent = getattr(renderer, 'point_cloud_range', None)
        if (
            extent is not None
            and max(abs(a - b) for a, b in zip(extent, space.point_cloud_range)) > 1e-3
        ):
            raise ValueError(
                f'renderer.point_cloud_range is {tuple(extent)}, that of '
                f'{name} {space.point_cloud_range}'
            )
        for field, part in dict(losses, renderer=renderer).items():
            free = getattr(part, 'free_index', -1)
            if free not in (-1, space.free):
                raise ValueError(
                    f'{field}.free_index is {free}, {name} has free space at {space.free}'
                )


def check_preprocessors(student: Optional[nn.Module], teacher: Optional[nn.Module]) -> None:
    """Raises a ValueError if student and teacher want other images.

    The teacher sees what the student's preprocessor makes. Compared are those
    settings that both have.

    Args:
        student, teacher: Their ``data_preprocessor``.
    """
    for name in ('mean', 'std', 'channel_order', 'pad_size_divisor'):
        ours, theirs = (getattr(p, name, None) for p in (student, teacher))
        if ours is None or theirs is None:
            continue
        if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
            ours, theirs = (v.flatten().tolist() for v in (ours, theirs))
        if ours != theirs:
            raise ValueError(
                f'data_preprocessor.{name} of the student is {ours}, the '
                f"teacher's {theirs}; the teacher sees the student's images: "
                'train both with the same, or give it its own '
                '(radocc_plugin.TeacherPipeline, tools/cache_teacher.py)'
            )


def describe_nonfinite(
    student: ModelOutputs, teacher: ModelOutputs, data_samples: Sequence
) -> Optional[str]:
    """Names the first model, tensor and samples with NaN or infinity.

    Returns:
        A sentence, or None if everything is finite.
    """
    tensors = [
        (model, name, tensor.detach())
        for model, outputs in (('student', student), ('teacher', teacher))
        for name, tensor in dict(outputs.features, occ_logits=outputs.occ_logits).items()
        if tensor is not None
    ]
    # One pass over a volume: NaN and infinity reach its sum. So does an
    # overflow of large numbers, which the second look tells apart. The host
    # waits once for all of them.
    sums = [x.sum(dtype=torch.promote_types(x.dtype, torch.float32)) for _, _, x in tensors]
    if not sums or bool(torch.stack([x.float() for x in sums]).isfinite().all()):
        return None
    for model, name, tensor in tensors:
        bad = ~tensor.isfinite().flatten(1).all(1)
        tokens = [
            data_samples[i].metainfo.get('token', f'number {i} of batch')
            for i in bad.nonzero()[:, 0].tolist()
        ]
        if tokens:
            kind = 'NaN' if bool(torch.isnan(tensor).any()) else 'infinity'
            return f'{kind} in {name} of the {model}, sample {", ".join(map(str, tokens))}'
    return None


def skips_step(
    action: str, student: ModelOutputs, teacher: ModelOutputs, data_samples: Sequence
) -> bool:
    """Whether this step must do without distillation.

    Skipped steps are counted: ``distill/skipped`` in the log, and the
    MessageHub's ``distill_skipped``, which checkpoints keep.

    Args:
        action: One of ``NONFINITE``.
        student: Outputs of the student.
        teacher: Outputs of the teacher.
        data_samples: The samples, for their tokens.

    Raises:
        FloatingPointError: If a tensor is not finite and that is an error.
    """
    found = describe_nonfinite(student, teacher, data_samples)
    if found and action == 'error':
        raise FloatingPointError(
            f"{found}; RadOccDistiller.nonfinite='skip' trains without distillation in such a step"
        )
    if action == 'skip':
        hub = MessageHub.get_current_instance()
        count = hub.get_info('distill_skipped', 0) + bool(found)
        hub.update_info('distill_skipped', count)
        hub.update_scalar('train/distill/skipped', count)
    if found:
        print_log(f'no distillation in this step: {found}', 'current', logging.WARNING)
    return bool(found)
