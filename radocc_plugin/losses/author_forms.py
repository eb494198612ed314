"""What the author's development code computed, for a row of its own.

The published text and this code differ; docs/losses.md sets them side by
side. R rays, S samples of a ray, M packed segments, B batch, C classes.
"""

from typing import Dict, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from radocc_plugin.losses.base import DistillBatch, DistillLoss
from radocc_plugin.losses.common import check_shape, connected_zero, full_precision
from radocc_plugin.registry import MODELS
from radocc_plugin.rendering import Render


@full_precision
def kd_kl_div(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 10.0,
    weight: Optional[Tensor] = None,
    avg_factor: Optional[float] = None,
) -> Tensor:
    """mmdet's ``KnowledgeDistillationKLDivLoss``: softmax over axis 1 inside.

    The divergence is divided by the number of bins and multiplied by the
    squared temperature.

    Args:
        student: What is taken for logits, bins on axis 1, (R, S, ...).
        teacher: The same of the teacher; detached.
        temperature: Divides both before the softmax.
        weight: Weight of each row, (R, ...) without the axis of the bins.
        avg_factor: Divisor of the sum over rows; their number if None.

    Returns:
        Scalar; a connected zero without rows.

    Raises:
        ValueError: If shapes disagree.

    mmdet 3.3.
    """
    check_shape('teacher', teacher, student.shape, 'student')
    if not student.numel():
        return connected_zero(student)
    target = (teacher.detach() / temperature).log_softmax(1)
    divergence = (
        F.kl_div(
            (student / temperature).log_softmax(1), target, reduction='none', log_target=True
        ).mean(1)
        * temperature**2
    )
    if weight is not None:
        check_shape('weight', weight, divergence.shape, 'the rows of student')
        divergence = divergence * weight
    if avg_factor is None:
        return divergence.mean()
    return divergence.sum() / avg_factor


@full_precision
def packed_double_softmax_kl(
    student_weights: Tensor,
    teacher_weights: Tensor,
    student_no_hit: Tensor,
    teacher_no_hit: Tensor,
    offsets: Tensor,
    temperature: float = 10.0,
) -> Tensor:
    """``kd_kl_div`` over rays of different length.

    The softmax runs over a ray's own segments and its no-hit bin, and the
    divergence is divided by their number. Equal to ``kd_kl_div`` of
    ``cat((weights, no_hit), 1)`` where all rays have equally many segments.

    Args:
        student_weights: Termination weights, (M,).
        teacher_weights: The same of the teacher, (M,); detached.
        student_no_hit: Probability to leave without a hit, (R,).
        teacher_no_hit: The same of the teacher, (R,); detached.
        offsets: First segment of each ray and M at the end, int64, (R + 1,).
        temperature: Divides both before the softmax.

    Returns:
        Scalar, mean over the rays; a connected zero without rays.

    Raises:
        ValueError: If shapes disagree.
    """
    check_shape('teacher_weights', teacher_weights, student_weights.shape, 'student_weights')
    rays = (len(offsets) - 1,)
    check_shape('student_no_hit', student_no_hit, rays, 'offsets')
    check_shape('teacher_no_hit', teacher_no_hit, rays, 'offsets')
    if int(offsets[-1]) != len(student_weights):
        raise ValueError(
            f'offsets must end at {len(student_weights)}, the '
            f'number of weights, got {int(offsets[-1])}'
        )
    if rays[0] == 0:
        return connected_zero(student_weights)
    count = offsets.diff()
    ray = torch.repeat_interleave(
        torch.arange(rays[0], device=offsets.device), count, output_size=len(student_weights)
    )
    # Float64: the divergence of two nearly uniform distributions is smaller
    # than the rounding of their logarithms in float32.
    bins = torch.cat((ray, torch.arange(rays[0], device=ray.device)))

    def log_softmax(weights: Tensor, no_hit: Tensor) -> Tensor:
        # Weights lie in [0, 1]: no shift by the maximum is needed.
        logits = torch.cat((weights, no_hit)).double() / temperature
        total = logits.new_zeros(rays).index_add(0, bins, logits.exp())
        return logits - total.log()[bins]

    teacher = log_softmax(teacher_weights.detach(), teacher_no_hit.detach())
    student = log_softmax(student_weights, student_no_hit)
    divergence = teacher.exp() * (teacher - student)
    per_ray = divergence.new_zeros(rays).index_add(0, bins, divergence)
    loss = (per_ray / (count + 1)).mean() * temperature**2
    return loss.to(student_weights.dtype)


@MODELS.register_module()
class RenderedDepthDoubleSoftmax(DistillLoss):
    """RDC as the author's code has it: a softmax over termination weights.

    Weights are probabilities already, so that the second softmax flattens
    them: the loss is orders of magnitude below RDC's and carries little of
    the shape of the distribution.

    Args:
        loss_weight: Weight of the loss; 100 in the author's last config.
        temperature: Divides the weights before the softmax.
    """

    compares = 'render'
    loss_name = 'loss_rdc_double_softmax'

    def __init__(
        self, loss_weight: float = 100.0, temperature: float = 10.0, loss_name: Optional[str] = None
    ) -> None:
        super().__init__(loss_weight, loss_name)
        self.temperature = temperature

    def forward(self, student: Render, teacher: Render, batch: DistillBatch) -> Dict[str, Tensor]:
        """Loss dict with one loss; ``Render.weights`` are (M,) or (R, S)."""
        if student.weights.dim() == 2:
            # Equal samples on all rays, the author's setting.
            loss = kd_kl_div(student.weights, teacher.weights, self.temperature)
        else:
            loss = packed_double_softmax_kl(
                student.weights,
                teacher.weights,
                student.no_hit,
                teacher.no_hit,
                student.geometry.crossings.offsets,
                self.temperature,
            )
        return {self.loss_name: self.loss_weight * loss}


@full_precision
def elementwise_semantic_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of (R, C) logits, mean over rays *and* classes.

    PyTorch's default reduction, so that the loss is C times smaller than the
    divergence of a ray.

    Raises:
        ValueError: If shapes disagree.
    """
    check_shape('teacher', teacher, student.shape, 'student')
    if not student.numel():
        return connected_zero(student)
    return F.kl_div(
        student.log_softmax(1), teacher.detach().log_softmax(1), reduction='none', log_target=True
    ).mean()


@MODELS.register_module()
class RenderedSemanticElementwiseKL(DistillLoss):
    """RSC as the author's code has it: no segments, no affinity.

    Args:
        loss_weight: Weight of the loss; 10 in the author's last config.
    """

    compares = 'render'
    loss_name = 'loss_rsc_elementwise_kl'

    def __init__(self, loss_weight: float = 10.0, loss_name: Optional[str] = None) -> None:
        super().__init__(loss_weight, loss_name)

    def forward(self, student: Render, teacher: Render, batch: DistillBatch) -> Dict[str, Tensor]:
        """Loss dict with one loss."""
        loss = elementwise_semantic_kl(student.semantics, teacher.semantics)
        return {self.loss_name: self.loss_weight * loss}


@MODELS.register_module()
class LogitsKDOverX(DistillLoss):
    """Logits KD as the author's code has it: softmax over the x axis.

    The code normalises axis 1 of (B, X, Y, Z, C) logits, which is x and not
    the classes, over all voxels. ``LogitsKD`` is the loss that was meant.

    Args:
        loss_weight: Weight of the loss; 10 in the author's last config.
        temperature: Divides the logits before the softmax.
    """

    compares = 'occ_logits'
    loss_name = 'loss_logits_kd_over_x'

    def __init__(
        self, loss_weight: float = 10.0, temperature: float = 10.0, loss_name: Optional[str] = None
    ) -> None:
        super().__init__(loss_weight, loss_name)
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, batch: DistillBatch) -> Dict[str, Tensor]:
        """Loss dict with one loss; logits (B, X, Y, Z, C)."""
        loss = kd_kl_div(student, teacher, self.temperature)
        return {self.loss_name: self.loss_weight * loss}
