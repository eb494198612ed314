"""Rendered depth consistency (RDC).

R rays, M segments (packed ray by ray).
"""
import torch
from mmengine.model import BaseModule
from torch import Tensor

from radocc_plugin.registry import MODELS
from radocc_plugin.rendering import Render, segment_transmittance, sum_rays


def ray_kl(teacher_optical_depth: Tensor,
           student_optical_depth: Tensor,
           offsets: Tensor,
           eps: float = 1e-7) -> Tensor:
    """KL(teacher || student) of the ray termination distributions.

    The distributions have one bin for each segment and one no-hit bin. The
    chain rule of the divergence gives ``sum_k T_k KL(Bernoulli(a_k) ||
    Bernoulli(b_k))`` with the teacher's transmittance T and the hit
    probabilities a (teacher) and b (student) of each segment: no logarithm of
    a product of small numbers.

    Args:
        teacher_optical_depth: Density times length, >= 0, (M,).
        student_optical_depth: The same of the student, (M,).
        offsets: First segment of each ray and M at the end, int64, (R + 1,).
        eps: Lower bound of a hit probability.

    Returns:
        Divergence of each ray in nats, >= 0, (R,). Gradients reach the
        student only.

    Raises:
        ValueError: If the optical depths have different shapes.

    RadOcc section 3.3 with the no-hit bin made explicit.
    """
    if teacher_optical_depth.shape != student_optical_depth.shape:
        raise ValueError('teacher_optical_depth and student_optical_depth '
                         'must have one shape, got '
                         f'{tuple(teacher_optical_depth.shape)} and '
                         f'{tuple(student_optical_depth.shape)}')
    teacher = teacher_optical_depth.detach()
    student = student_optical_depth
    entry, _ = segment_transmittance(teacher, offsets)
    hit = (-torch.expm1(-teacher)).clamp_min(eps)
    student_hit = (-torch.expm1(-student)).clamp_min(eps)
    divergence = (
        hit * (hit.log() - student_hit.log()) + (-teacher).exp() *
        (student - teacher))
    return sum_rays(entry * divergence, offsets)


@MODELS.register_module()
class RenderedDepthConsistency(BaseModule):
    """Mean ``ray_kl`` of teacher and student over the drawn rays.

    Args:
        loss_weight: Weight of the loss.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Render, teacher: Render, **kwargs) -> dict:
        """Loss dict with ``loss_rdc``; connected zero without rays."""
        divergence = ray_kl(teacher.optical_depth, student.optical_depth,
                            student.geometry.segments.offsets)
        return dict(
            loss_rdc=self.loss_weight * divergence.sum() /
            max(len(divergence), 1))
