"""Rendered semantic consistency (RSC) as a registered loss."""

from typing import Dict, Optional

from torch import Tensor

from radocc_plugin.losses.base import DistillBatch, DistillLoss
from radocc_plugin.losses.common import DISTANCES, check_choice, class_kl
from radocc_plugin.losses.segment_affinity import (
    group_rays,
    pixel_affinity_distance,
    segment_affinity_distance,
)
from radocc_plugin.registry import MODELS
from radocc_plugin.rendering import Render

AFFINITIES = ('segments', 'pixels')
AFFINITY_FEATURES = ('centred', 'logits')


@MODELS.register_module()
class RenderedSemanticConsistency(DistillLoss):
    """Segment-guided affinity distillation plus KL of rendered semantics.

    ``loss = loss_weight * (affinity_weight * affinity distance + kl_weight *
    KL)``. Rays weigh in the KL by the teacher's opacity, so that sky counts
    for nothing. A part of weight 0 is not computed: affinity only or KL only.

    Args:
        loss_weight: Weight of the whole term (lambda 2 of the paper).
        kl_weight: Weight of the KL in it (omega of the paper; its value is
            not published).
        affinity_weight: Weight of the affinity distance in it.
        temperature: Temperature of the KL.
        affinity: Between the ``'segments'`` of an image, or between
            ``'pixels'`` inside a segment.
        affinity_features: What the cosines compare: ``'centred'`` logits
            (default), whose mean over the classes is taken off, or
            ``'logits'`` as they are. A constant added to all logits changes
            no prediction and no centred cosine, but it does change the
            others: they fade where both models have a large one.
        distance: ``'l1'`` or ``'l2'`` (squared) between affinities.
        min_rays: Segments hit by fewer rays are dropped.
        max_pairs: Cap of the pixel pairs of a segment.
        loss_name: Prefix of ``_affinity`` and ``_kl`` in the log.

    Raises:
        ValueError: If an argument is not valid.

    RadOcc section 3.4.
    """

    compares = 'render'
    loss_name = 'loss_rsc'

    def __init__(
        self,
        loss_weight: float = 1.0,
        kl_weight: float = 1.0,
        affinity_weight: float = 1.0,
        temperature: float = 1.0,
        affinity: str = 'segments',
        affinity_features: str = 'centred',
        distance: str = 'l1',
        min_rays: int = 2,
        max_pairs: int = 256,
        loss_name: Optional[str] = None,
    ) -> None:
        super().__init__(loss_weight, loss_name)
        name = type(self).__name__
        check_choice(f'{name}.affinity', affinity, AFFINITIES)
        check_choice(f'{name}.affinity_features', affinity_features, AFFINITY_FEATURES)
        check_choice(f'{name}.distance', distance, DISTANCES)
        if min_rays < 1 or max_pairs < 1:
            raise ValueError(
                f'{name}.min_rays and max_pairs take positive '
                f'numbers, got {min_rays} and {max_pairs}'
            )
        if temperature <= 0:
            raise ValueError(f'{name}.temperature takes a positive number, got {temperature}')
        if min(kl_weight, affinity_weight) < 0 or not (kl_weight or affinity_weight):
            raise ValueError(
                f'{name}.kl_weight and affinity_weight take numbers >= 0, not '
                f'both 0, got {kl_weight} and {affinity_weight}'
            )
        self.kl_weight = kl_weight
        self.affinity_weight = affinity_weight
        self.temperature = temperature
        self.affinity = affinity
        self.affinity_features = affinity_features
        self.distance = distance
        self.min_rays = min_rays
        self.max_pairs = max_pairs
        if affinity_weight:
            self.needs = ('segments',)
            if affinity == 'pixels':
                self.needs += ('generator',)

    def forward(self, student: Render, teacher: Render, batch: DistillBatch) -> Dict[str, Tensor]:
        """Loss dict with ``<loss_name>_affinity`` and ``<loss_name>_kl``.

        Args:
            student: Render of the student.
            teacher: Render of the teacher at the same rays.
            batch: With ``segments`` unless ``affinity_weight`` is 0.
        """
        losses = {}
        if self.affinity_weight:
            losses[f'{self.loss_name}_affinity'] = (
                self.loss_weight
                * self.affinity_weight
                * self._affinity_distance(student, teacher, batch)
            )
        if self.kl_weight:
            losses[f'{self.loss_name}_kl'] = (
                self.loss_weight
                * self.kl_weight
                * class_kl(
                    student.semantics, teacher.semantics, self.temperature, 1 - teacher.no_hit
                )
            )
        return losses

    def _affinity_distance(self, student: Render, teacher: Render, batch: DistillBatch) -> Tensor:
        group, image = group_rays(
            student.geometry.rays, batch.require('segments', type(self).__name__)
        )
        own, target = student.semantics, teacher.semantics
        if self.affinity_features == 'centred':
            own, target = (x - x.mean(1, keepdim=True) for x in (own, target))
        if self.affinity == 'pixels':
            return pixel_affinity_distance(
                own, target, group, batch.generator, self.min_rays, self.max_pairs, self.distance
            )
        return segment_affinity_distance(own, target, group, image, self.min_rays, self.distance)
