"""Rendered depth consistency (RDC)."""

from typing import Dict

from radocc_plugin.losses.base import DistillBatch, DistillLoss
from radocc_plugin.registry import MODELS
from radocc_plugin.rendering import Render


@MODELS.register_module()
class RenderedDepthConsistency(DistillLoss):
    """Mean over the rays of KL(teacher || student) of where each ray ends.

    One bin a crossed voxel (or a sample) and one no-hit bin; gradients reach
    the student only. See ``rendering.ray_kl``.
    """

    compares = 'render'
    loss_name = 'loss_rdc'

    def forward(self, student: Render, teacher: Render, batch: DistillBatch) -> Dict:
        """Loss dict with one loss; a connected zero without rays."""
        divergence = student.ray_kl(teacher)
        mean = divergence.sum() / max(len(divergence), 1)
        return {self.loss_name: self.loss_weight * mean}
