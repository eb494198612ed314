"""Compared alignments of rendered maps: depth and classes of the image.

R rays, C classes.
"""

from typing import Dict, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from radocc_plugin.losses.base import DistillBatch, DistillLoss
from radocc_plugin.losses.common import check_choice, check_shape, connected_zero, full_precision
from radocc_plugin.registry import MODELS
from radocc_plugin.rendering import Render

DEPTH_DISTANCES = ('smooth_l1', 'l1', 'silog')


@full_precision
def scale_invariant_log(student: Tensor, teacher: Tensor, variance_focus: float = 0.85) -> Tensor:
    """Square root of ``mean(d^2) - variance_focus * mean(d)^2`` with d the
    difference of the logarithms.

    Args:
        student: Depths in metres, (R,); below 1 mm taken as 1 mm.
        teacher: Depths in metres, (R,); detached. Rays with depth <= 0 do
            not count.
        variance_focus: In [0, 1]; 1 makes the loss blind to scale.

    Returns:
        Scalar; 0 with a zero gradient for equal depths, a connected zero
        where no ray counts.

    Raises:
        ValueError: If shapes disagree.

    Eigen et al., arXiv 1406.2283; RadOcc author's ``silog`` (0.85).
    """
    check_shape('teacher', teacher, student.shape, 'student')
    valid = teacher > 0
    if not bool(valid.any()):
        return connected_zero(student)
    difference = student[valid].clamp_min(1e-3).log() - teacher.detach()[valid].log()
    value = difference.square().mean() - variance_focus * difference.mean() ** 2
    # The root of 0 has an infinite gradient.
    positive = value > 1e-12
    return torch.where(positive, value, 1.0).sqrt() * positive


def depth_map_distance(
    student: Tensor,
    teacher: Tensor,
    valid: Optional[Tensor] = None,
    kind: str = 'smooth_l1',
    variance_focus: float = 0.85,
) -> Tensor:
    """Distance between two rendered depth maps.

    Args:
        student: Depths in metres, (R,).
        teacher: The same of the teacher; detached.
        valid: Rays that count, bool, (R,); all if None.
        kind: ``'smooth_l1'`` (quadratic below 1 m), ``'l1'`` or ``'silog'``.
        variance_focus: Of ``'silog'``.

    Returns:
        Mean over the rays that count; a connected zero without any.

    Raises:
        ValueError: If shapes disagree or ``kind`` is unknown.
    """
    check_choice('distance', kind, DEPTH_DISTANCES)
    check_shape('teacher', teacher, student.shape, 'student')
    if valid is not None:
        check_shape('valid', valid, student.shape, 'student')
        student, teacher = student[valid], teacher[valid]
    if not len(student):
        return connected_zero(student)
    if kind == 'silog':
        return scale_invariant_log(student, teacher, variance_focus)
    function = F.l1_loss if kind == 'l1' else F.smooth_l1_loss
    return full_precision(function)(student, teacher.detach())


@full_precision
def rendered_cross_entropy(
    student: Tensor, teacher: Tensor, weight: Optional[Tensor] = None
) -> Tensor:
    """Cross entropy of rendered semantics against the teacher's best class.

    Args:
        student: Accumulated logits, (R, C).
        teacher: The same of the teacher, (R, C); only its argmax counts.
        weight: Weight of each ray, (R,); 1 if None.

    Returns:
        Weighted mean over the rays in nats, above 0 even for equal renders; a
        connected zero without rays.

    Raises:
        ValueError: If shapes disagree.
    """
    check_shape('teacher', teacher, student.shape, 'student')
    if not student.numel():
        return connected_zero(student)
    loss = F.cross_entropy(student, teacher.argmax(1), reduction='none')
    if weight is None:
        weight = torch.ones_like(loss)
    check_shape('weight', weight, loss.shape, 'the rays of student')
    weight = weight.detach()
    return (loss * weight).sum() / weight.sum().clamp_min(1e-6)


@MODELS.register_module()
class RenderedDepthMapAlignment(DistillLoss):
    """Aligns rendered depth maps, not distributions (negative in the paper).

    Args:
        loss_weight: Weight of the loss; 0.1 in the author's code.
        distance: ``'smooth_l1'``, ``'l1'`` or ``'silog'``.
        given_hit: Compare the mean depth of the light that ends in the grid.
            False compares the accumulated depth, which shrinks with the
            opacity, as the author's code.
        min_opacity: Only rays that the teacher stops with more than this
            probability.
        variance_focus: Of ``'silog'``.

    Raises:
        ValueError: If an argument is not valid.
    """

    compares = 'render'
    loss_name = 'loss_depth_map'

    def __init__(
        self,
        loss_weight: float = 0.1,
        distance: str = 'smooth_l1',
        given_hit: bool = True,
        min_opacity: float = 0.5,
        variance_focus: float = 0.85,
        loss_name: Optional[str] = None,
    ) -> None:
        super().__init__(loss_weight, loss_name)
        check_choice('RenderedDepthMapAlignment.distance', distance, DEPTH_DISTANCES)
        self.distance = distance
        self.given_hit = given_hit
        self.min_opacity = min_opacity
        self.variance_focus = variance_focus

    def forward(self, student: Render, teacher: Render, batch: DistillBatch) -> Dict[str, Tensor]:
        """Loss dict with one loss."""
        own, target = (
            render.depth_given_hit if self.given_hit else render.depth
            for render in (student, teacher)
        )
        loss = depth_map_distance(
            own, target, 1 - teacher.no_hit > self.min_opacity, self.distance, self.variance_focus
        )
        return {self.loss_name: self.loss_weight * loss}


@MODELS.register_module()
class RenderedCrossEntropy(DistillLoss):
    """Cross entropy of the rendered image against the teacher's classes.

    Rays weigh by the teacher's opacity, so that sky counts for nothing.

    Args:
        loss_weight: Weight of the loss.
    """

    compares = 'render'
    loss_name = 'loss_rendered_ce'

    def forward(self, student: Render, teacher: Render, batch: DistillBatch) -> Dict[str, Tensor]:
        """Loss dict with one loss."""
        loss = rendered_cross_entropy(student.semantics, teacher.semantics, 1 - teacher.no_hit)
        return {self.loss_name: self.loss_weight * loss}
