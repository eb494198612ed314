"""Compared alignments of volumes: logits, features, channels.

B batch, X Y Z grid, C classes or channels.
"""

from typing import Dict, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radocc_plugin.losses.base import DistillBatch, DistillLoss
from radocc_plugin.losses.common import (
    DISTANCES,
    check_choice,
    check_shape,
    class_kl,
    connected_zero,
    distance,
    full_precision,
    visible_rows,
)
from radocc_plugin.registry import MODELS


def logits_kd(
    student: Tensor, teacher: Tensor, mask: Optional[Tensor] = None, temperature: float = 1.0
) -> Tensor:
    """KL(teacher || student) of the class distributions of visible voxels.

    Args:
        student: Occupancy logits, (B, X, Y, Z, C).
        teacher: The same of the teacher; detached.
        mask: Voxels that count, bool, (B, X, Y, Z); all if None.
        temperature: Softens both; the loss is scaled by its square.

    Returns:
        Mean over the visible voxels in nats; a connected zero without any.

    Raises:
        ValueError: If shapes disagree.

    Hinton et al., arXiv 1503.02531.
    """
    check_shape('teacher', teacher, student.shape, 'student')
    return class_kl(visible_rows(student, mask), visible_rows(teacher, mask), temperature)


@full_precision
def feature_distance(
    student: Tensor,
    teacher: Tensor,
    mask: Optional[Tensor] = None,
    kind: str = 'l2',
    weight: Optional[Tensor] = None,
) -> Tensor:
    """Mean distance of features over visible cells and channels.

    Args:
        student: Features, channels last, (..., C).
        teacher: The same of the teacher; detached.
        mask: Cells that count, bool, (...); all if None.
        kind: ``'l1'`` or ``'l2'`` (squared).
        weight: Weight of each cell, >= 0, (...); 1 if None.

    Returns:
        Scalar; a connected zero without visible cells.

    Raises:
        ValueError: If shapes disagree or ``kind`` is unknown.

    FitNets, arXiv 1412.6550; the author's code takes L1.
    """
    check_shape('teacher', teacher, student.shape, 'student')
    rows = visible_rows(student, mask)
    if not rows.numel():
        return connected_zero(student)
    each = distance(rows - visible_rows(teacher.detach(), mask), kind)
    if weight is None:
        return each.mean()
    check_shape('weight', weight, student.shape[:-1], 'the cells of student')
    weights = visible_rows(weight.detach()[..., None], mask).squeeze(-1)
    return (weights * each.mean(-1)).sum() / weights.sum().clamp_min(1e-6)


@full_precision
def channel_wise_kl(
    student: Tensor, teacher: Tensor, mask: Optional[Tensor] = None, temperature: float = 4.0
) -> Tensor:
    """KL(teacher || student) of each channel's distribution over the cells.

    Args:
        student: Features or logits, channels last, (B, ..., C).
        teacher: The same of the teacher; detached.
        mask: Cells that count, bool, (B, ...); all if None.
        temperature: Softens both; the loss is scaled by its square.

    Returns:
        Mean over samples and channels in nats; a sample without visible
        cells counts as 0.

    Raises:
        ValueError: If shapes disagree.

    Shu et al. (CWD), arXiv 2011.13256 equation 4.
    """
    check_shape('teacher', teacher, student.shape, 'student')
    if mask is not None:
        check_shape('mask', mask, student.shape[:-1], 'student')
    loss = connected_zero(student)
    for index in range(len(student)):
        own = None if mask is None else mask[index]
        rows = visible_rows(student[index], own) / temperature
        target = visible_rows(teacher[index].detach(), own) / temperature
        loss = loss + F.kl_div(
            rows.log_softmax(0), target.log_softmax(0), reduction='sum', log_target=True
        )
    return loss * temperature**2 / max(len(student) * student.shape[-1], 1)


class _VolumeLoss(DistillLoss):
    """A loss on volumes that may look at the visible voxels only."""

    def __init__(self, loss_weight: float, loss_name: Optional[str], visible_only: bool) -> None:
        super().__init__(loss_weight, loss_name)
        self.visible_only = visible_only
        if visible_only:
            self.needs = ('mask_camera',)

    def _mask(self, batch: DistillBatch) -> Optional[Tensor]:
        return batch.mask_camera if self.visible_only else None


@MODELS.register_module()
class LogitsKD(_VolumeLoss):
    """Hinton's distillation of occupancy logits, on the class axis.

    Args:
        loss_weight: Weight of the loss.
        temperature: Temperature of both softmaxes.
        visible_only: Only the voxels that a camera sees.
    """

    compares = 'occ_logits'
    loss_name = 'loss_logits_kd'

    def __init__(
        self,
        loss_weight: float = 1.0,
        temperature: float = 1.0,
        visible_only: bool = True,
        loss_name: Optional[str] = None,
    ) -> None:
        super().__init__(loss_weight, loss_name, visible_only)
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, batch: DistillBatch) -> Dict[str, Tensor]:
        """Loss dict with one loss; logits (B, X, Y, Z, C)."""
        loss = logits_kd(student, teacher, self._mask(batch), self.temperature)
        return {self.loss_name: self.loss_weight * loss}


@MODELS.register_module()
class FeatureAlignment(_VolumeLoss):
    """FitNet: the student's adapted features mimic the teacher's.

    Args:
        student_channels: Channels of the student's feature; sizes the
            adapter, a 1x1x1 convolution on channels-last features. None for
            no adapter: both features must have the same channels then.
        teacher_channels: Channels of the teacher's feature.
        feature: Name of the tapped feature.
        distance: ``'l1'`` or ``'l2'`` (squared).
        loss_weight: Weight of the loss; the author tried L1 with 0.1 to 1.
        visible_only: Only the voxels that a camera sees; the feature has the
            grid of the labels then.
        surfaces_only: Only the teacher's surfaces: each voxel weighs by the
            light of the teacher's rays that ends in it, at most that of one
            ray of the full render; the feature has the grid of the labels
            then. Beside ``visible_only`` both hold.

    Raises:
        ValueError: If only one number of channels is given.

    The size is not found at the first step, since an optimizer and DDP need
    the adapter's parameters before it.
    """

    compares = 'features'
    loss_name = 'loss_feature'

    def __init__(
        self,
        student_channels: Optional[int] = None,
        teacher_channels: Optional[int] = None,
        feature: str = 'voxel',
        distance: str = 'l2',
        loss_weight: float = 1.0,
        visible_only: bool = False,
        loss_name: Optional[str] = None,
        surfaces_only: bool = False,
    ) -> None:
        super().__init__(loss_weight, loss_name, visible_only)
        check_choice('FeatureAlignment.distance', distance, DISTANCES)
        self.surfaces_only = surfaces_only
        if surfaces_only:
            self.needs = (*self.needs, 'light')
        if (student_channels is None) != (teacher_channels is None):
            raise ValueError(
                'FeatureAlignment.student_channels and teacher_channels take '
                'two numbers or None twice, got '
                f'{student_channels} and {teacher_channels}'
            )
        self.feature = feature
        self.distance = distance
        self.adapter = None
        if student_channels is not None and teacher_channels is not None:
            # The draws of the adapter must not shift the student's.
            with torch.random.fork_rng(devices=[]):
                self.adapter = nn.Linear(student_channels, teacher_channels)

    def forward(self, student: Tensor, teacher: Tensor, batch: DistillBatch) -> Dict[str, Tensor]:
        """Loss dict with one loss; features (B, ..., C).

        Raises:
            ValueError: If the channels are not those of the config.
        """
        expected = (teacher.shape[-1],) * 2
        if self.adapter is not None:
            expected = (self.adapter.in_features, self.adapter.out_features)
        channels = (student.shape[-1], teacher.shape[-1])
        if channels != expected:
            raise ValueError(
                'FeatureAlignment.student_channels and teacher_channels must '
                f'be {channels[0]} and {channels[1]} for feature '
                f'{self.feature!r}, got '
                f'{expected if self.adapter is not None else None}'
            )
        if self.adapter is not None:
            student = self.adapter(student)
        weight = None
        if self.surfaces_only:
            weight = batch.require('light', type(self).__name__).ended.clamp_max(1)
        loss = feature_distance(student, teacher, self._mask(batch), self.distance, weight)
        return {self.loss_name: self.loss_weight * loss}


@MODELS.register_module()
class ChannelWiseDistillation(_VolumeLoss):
    """CWD: each channel as a distribution over the voxels.

    Args:
        compares: ``'occ_logits'`` or ``'features'``.
        feature: Name of the tapped feature.
        loss_weight: Weight of the loss.
        temperature: Temperature of both softmaxes.
        visible_only: Only the voxels that a camera sees.
    """

    loss_name = 'loss_cwd'

    def __init__(
        self,
        compares: str = 'occ_logits',
        feature: str = 'voxel',
        loss_weight: float = 1.0,
        temperature: float = 4.0,
        visible_only: bool = True,
        loss_name: Optional[str] = None,
    ) -> None:
        super().__init__(loss_weight, loss_name, visible_only)
        self.set_compared(compares, feature)
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, batch: DistillBatch) -> Dict[str, Tensor]:
        """Loss dict with one loss; volumes (B, X, Y, Z, C)."""
        loss = channel_wise_kl(student, teacher, self._mask(batch), self.temperature)
        return {self.loss_name: self.loss_weight * loss}
