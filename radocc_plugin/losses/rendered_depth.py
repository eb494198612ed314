"""Rendered depth consistency (RDC)."""
from typing import Dict

from mmengine.model import BaseModule
from torch import Tensor

from radocc_plugin.registry import MODELS
from radocc_plugin.rendering import Render


@MODELS.register_module()
class RenderedDepthConsistency(BaseModule):
    """Mean over the rays of KL(teacher || student) of where each ray ends.

    One bin a crossed voxel (or a sample) and one no-hit bin; gradients reach
    the student only. See ``rendering.ray_kl``.

    Args:
        loss_weight: Weight of the loss.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Render, teacher: Render,
                **kwargs) -> Dict[str, Tensor]:
        """Loss dict with ``loss_rdc``; connected zero without rays."""
        divergence = student.ray_kl(teacher)
        return dict(
            loss_rdc=self.loss_weight * divergence.sum() /
            max(len(divergence), 1))
