"""The teacher's rendered depth as the target of a student's depth net.

B batch, N cameras, D depth bins, h w feature map, R rays, M crossings.
"""

from dataclasses import replace
from typing import Dict, Optional, Sequence, Tuple

import torch
from torch import Tensor

from radocc_plugin.geometry import DepthBins, RayCrossings, draw_rays
from radocc_plugin.losses.base import DistillBatch, DistillLoss, ModelOutputs
from radocc_plugin.losses.common import check_shape, full_precision
from radocc_plugin.registry import MODELS


def binned_termination(
    weights: Tensor, crossings: RayCrossings, bins: DepthBins
) -> Tuple[Tensor, Tensor]:
    """Where the light of each ray ends, among the depth bins.

    A crossed voxel counts for the bin that its middle lies in.

    Args:
        weights: Termination weights of the crossings, (M,).
        crossings: Of R rays whose parameter is projection depth.
        bins: The D bins.

    Returns:
        Distribution over the bins, (R, D), and the share of the light that
        ends inside them, (R,).
    """
    index = bins.position((crossings.near + crossings.far) / 2).floor()
    inside = (index >= 0) & (index < bins.count)
    cell = crossings.ray * bins.count + index.clamp(0, bins.count - 1).long()
    mass = weights.new_zeros(crossings.num_rays * bins.count)
    mass = mass.index_add(0, cell, weights * inside).view(-1, bins.count)
    share = mass.sum(1)
    return mass / share.clamp_min(1e-6)[:, None], share


@full_precision
def depth_distribution_kl(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of KL(teacher || student) of depth distributions.

    Args:
        student: Probabilities over the bins, (R, D).
        teacher: The same of the teacher, (R, D); detached.
        weight: Weight of each ray, (R,); detached.

    Returns:
        Scalar in nats; a connected zero where nothing weighs.

    Raises:
        ValueError: If shapes disagree.
    """
    check_shape('teacher', teacher, student.shape, 'student')
    check_shape('weight', weight, student.shape[:1], 'the rays of student')
    target, weight = teacher.detach(), weight.detach()
    log_student = student.clamp_min(1e-7).log()
    divergence = (torch.xlogy(target, target) - target * log_student).sum(1)
    return (weight * divergence).sum() / weight.sum().clamp_min(1e-6)


@MODELS.register_module()
class DepthDistributionConsistency(DistillLoss):
    """KL between where the teacher's volume ends the ray of each feature
    cell and the student's depth distribution there.

    For lift-splat students: the distribution that places their image
    features learns from the teacher's geometry, also where no LiDAR return
    is. It needs no render of the student. A ray weighs by the share of its
    light that ends inside the bins.

    The depth distribution is a tapped feature with channels last,
    (B, N, h, w, D), after its softmax::

        student_features=dict(depth=dict(module='img_view_transformer',
            output_index=1, layout='(b n) c h w -> b n h w c', axes=dict(n=6)))

    Args:
        depth: ``(first, end, step)`` of the student's depth bins in metres,
            as in its ``grid_config``.
        downsample: Size of a feature cell in pixels of the input images.
        sid: Whether the bins grow with depth, see ``DepthBins``.
        feature: Name of the tapped feature.
        loss_weight: Weight of the loss.

    Raises:
        ValueError: If the bins are not valid.
    """

    compares = 'outputs'
    feature: str
    needs = ('teacher_view',)
    loss_name = 'loss_depth_distribution'

    def __init__(
        self,
        depth: Sequence[float],
        downsample: int = 16,
        sid: bool = False,
        feature: str = 'depth',
        loss_weight: float = 1.0,
        loss_name: Optional[str] = None,
    ) -> None:
        super().__init__(loss_weight, loss_name)
        first, end, step = depth
        self.bins = DepthBins(first, end, step, sid)
        self.downsample = downsample
        self.feature = feature

    def forward(
        self, student: ModelOutputs, teacher: ModelOutputs, batch: DistillBatch
    ) -> Dict[str, Tensor]:
        """Loss dict with one loss.

        Raises:
            ValueError: If the depth distribution is not tapped, or has other
                bins or cameras.
        """
        name = type(self).__name__
        if self.feature not in student.features:
            raise ValueError(
                f'{name}.feature takes the name of a tapped feature of the student, one of '
                f'{sorted(student.features)}, got {self.feature!r}'
            )
        depth = student.features[self.feature]
        view = batch.require('teacher_view', name)
        expected = (*view.cameras.cam2img.shape[:2], self.bins.count)
        if depth.dim() != 5 or (*depth.shape[:2], depth.shape[-1]) != expected:
            raise ValueError(
                f'{name} takes depth distributions (B, N, h, w, D) with B, N, D = {expected}, '
                f'got {tuple(depth.shape)}'
            )
        size = (depth.shape[2], depth.shape[3])
        # Rays through the centres of the feature cells.
        pixels = (size[0] * self.downsample, size[1] * self.downsample)
        render = view.render(draw_rays(replace(view.cameras, image_size=pixels), size, 'grid'))
        target, share = binned_termination(render.weights, render.geometry.crossings, self.bins)
        loss = depth_distribution_kl(depth.flatten(0, 3), target, share)
        return {self.loss_name: self.loss_weight * loss}
