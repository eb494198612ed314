"""Rendered semantic consistency (RSC).

R rays, S groups (segments of all images of a batch), C classes.
"""
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from radocc_plugin.registry import MODELS
from radocc_plugin.rendering import Render


def segment_means(features: Tensor,
                  group: Tensor,
                  min_rays: int = 1) -> Tuple[Tensor, Tensor]:
    """Mean feature of each group of rays.

    Args:
        features: Rendered semantics, (R, C).
        group: Group of each ray, int64, negative for rays without one, (R,).
        min_rays: Groups with fewer rays are dropped.

    Returns:
        Means, (S, C), and the group id of each, ascending, (S,).
    """
    inside = group >= 0
    ids, row = torch.unique(group[inside], return_inverse=True)
    count = torch.bincount(row, minlength=len(ids))
    total = features.new_zeros(len(ids), features.shape[1])
    total = total.index_add(0, row, features[inside])
    keep = count >= min_rays
    return total[keep] / count[keep, None], ids[keep]


def affinity(features: Tensor) -> Tensor:
    """Cosine similarity between all pairs of rows: (S, C) -> (S, S)."""
    normalised = F.normalize(features, dim=-1)
    return normalised @ normalised.t()


def segment_affinity_distance(student: Tensor,
                              teacher: Tensor,
                              group: Tensor,
                              image: Tensor,
                              min_rays: int = 2) -> Tensor:
    """Mean L1 distance between the affinities of student and teacher.

    Rays are averaged over each segment; segments of one image are compared
    with each other.

    Args:
        student: Rendered semantics, (R, C).
        teacher: The same of the teacher, (R, C); detached.
        group: Segment id of each ray, unique over images, negative for rays
            without a segment, (R,).
        image: Image of each ray, int64, (R,).
        min_rays: Segments with fewer rays are dropped.

    Returns:
        Scalar; a connected zero where no image has two segments.

    Raises:
        ValueError: If shapes disagree.

    RadOcc section 3.4 (segment-guided affinity distillation). The paper's
    norm is not known; L1 over the pairs of an image is our reading.
    """
    if student.shape != teacher.shape or group.shape != student.shape[:1]:
        raise ValueError('student and teacher take one shape (R, C) and group '
                         f'(R,), got {tuple(student.shape)}, '
                         f'{tuple(teacher.shape)} and {tuple(group.shape)}')
    student_means, ids = segment_means(student, group, min_rays)
    teacher_means, _ = segment_means(teacher.detach(), group, min_rays)
    if len(ids) < 2:
        return student.sum() * 0
    # Image of each segment: all its rays agree, so any of them will do.
    image_of = image.new_zeros(int(group.max()) + 1)
    image_of[group[group >= 0]] = image[group >= 0]
    image_of = image_of[ids]
    pair = image_of[:, None] == image_of[None]
    pair = pair & ~torch.eye(len(ids), dtype=torch.bool, device=pair.device)
    distance = (affinity(student_means) - affinity(teacher_means)).abs()
    return (distance * pair).sum() / pair.sum().clamp_min(1)


def semantic_kl(student: Tensor,
                teacher: Tensor,
                temperature: float = 1.0,
                weight: Optional[Tensor] = None) -> Tensor:
    """KL(teacher || student) of the rendered class distributions.

    Args:
        student: Accumulated logits, (R, C).
        teacher: The same of the teacher, (R, C); detached.
        temperature: Softens both; the loss is scaled by its square.
        weight: Weight of each ray, (R,); 1 if None.

    Returns:
        Weighted mean over the rays, a connected zero without rays.
    """
    divergence = F.kl_div(
        F.log_softmax(student / temperature, dim=-1),
        F.log_softmax(teacher.detach() / temperature, dim=-1),
        reduction='none',
        log_target=True).sum(-1) * temperature**2
    if weight is None:
        weight = torch.ones_like(divergence)
    return (divergence * weight).sum() / weight.sum().clamp_min(1e-6)


@MODELS.register_module()
class RenderedSemanticConsistency(BaseModule):
    """Segment-guided affinity distillation plus KL of rendered semantics.

    ``loss = loss_weight * (affinity distance + kl_weight * KL)``. Rays weigh
    in the KL by the teacher's opacity, so that sky counts for nothing.

    Args:
        loss_weight: Weight of the whole term (lambda 2 of the paper).
        kl_weight: Weight of the KL in it (omega of the paper; its value is
            not published).
        temperature: Temperature of the KL.
        min_rays: Segments hit by fewer rays are dropped.
    """

    def __init__(self,
                 loss_weight: float = 1.0,
                 kl_weight: float = 1.0,
                 temperature: float = 1.0,
                 min_rays: int = 2) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.kl_weight = kl_weight
        self.temperature = temperature
        self.min_rays = min_rays

    def forward(self, student: Render, teacher: Render,
                segments: Optional[Tensor], **kwargs) -> dict:
        """Loss dict with ``loss_rsc_affinity`` and ``loss_rsc_kl``.

        Args:
            student: Render of the student.
            teacher: Render of the teacher at the same rays.
            segments: Label maps of the raw images at any resolution, 0 = no
                segment, (B, N, h, w).

        Raises:
            ValueError: If there are no segments.
        """
        if segments is None:
            raise ValueError(
                'RenderedSemanticConsistency needs data_sample.segments: add '
                'radocc_plugin.LoadSegments to the pipeline and make the maps '
                'with tools/generate_segments.py')
        rays = student.geometry.rays
        label = rays.gather_maps(segments).long()
        image = rays.sample * segments.shape[1] + rays.camera
        stride = int(segments.max()) + 1
        group = torch.where(label > 0, image * stride + label,
                            torch.full_like(label, -1))
        distance = segment_affinity_distance(student.semantics,
                                             teacher.semantics, group, image,
                                             self.min_rays)
        divergence = semantic_kl(student.semantics, teacher.semantics,
                                 self.temperature,
                                 (1 - teacher.no_hit).detach())
        return dict(
            loss_rsc_affinity=self.loss_weight * distance,
            loss_rsc_kl=self.loss_weight * self.kl_weight * divergence)
