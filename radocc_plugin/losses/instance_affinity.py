"""Compared alignment of affinities between instances and between channels.

B batch, X Y Z grid, C classes or channels, N instances.
"""

from typing import Callable, Dict, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from radocc_plugin.losses.base import DistillBatch, DistillLoss
from radocc_plugin.losses.common import check_shape, connected_zero, full_precision
from radocc_plugin.occ3d import FREE
from radocc_plugin.registry import MODELS


def inter_instance_affinity(features: Tensor) -> Tensor:
    """Inner products of instances, rows of length 1: (N, C) -> (N, N)."""
    return F.normalize(features @ features.t(), dim=1)


def inter_channel_affinity(features: Tensor) -> Tensor:
    """Inner products of channels, rows of length 1: (N, C) -> (C, C)."""
    return F.normalize(features.t() @ features, dim=1)


@full_precision
def affinity_alignment(
    student: Tensor, teacher: Tensor, affinity: Callable[[Tensor], Tensor]
) -> Tensor:
    """Squared distance between the rows of two affinity matrices.

    Args:
        student: Features of instances, (N, C).
        teacher: The same of the teacher; detached. For
            ``inter_instance_affinity`` its channels may be others.
        affinity: Makes the matrix of one model, rows of length 1.

    Returns:
        Mean over the rows, in [0, 4]; a connected zero without instances.
        The mean square of the matrices, as in the author's code, is this
        divided by their number of columns.

    Raises:
        ValueError: If the matrices have different shapes.

    TiG-BEV, arXiv 2212.13979; RadOcc author's code of 2023-10-28.
    """
    if not len(student) and not len(teacher):
        return connected_zero(student)
    student, teacher = affinity(student), affinity(teacher.detach())
    check_shape(f'{affinity.__name__} of teacher', teacher, student.shape, "the student's")
    return (student - teacher).square().sum(1).mean()


@MODELS.register_module()
class AffinityAlignment(DistillLoss):
    """Inter-instance and inter-channel affinities of occupied voxels.

    Instances are visible voxels that the ground truth calls occupied, drawn
    for each sample; TiG-BEV takes key points inside the boxes.

    Args:
        compares: ``'occ_logits'`` or ``'features'``.
        feature: Name of the tapped feature.
        instance_weight: Weight of the inter-instance part.
        channel_weight: Weight of the inter-channel part; needs features with
            the same channels.
        num_instances: At most this many voxels of a sample.
        loss_weight: Weight of the whole loss.
        free_index: Label of free space.
    """

    needs = ('gt_occ', 'mask_camera', 'generator')
    loss_name = 'loss_affinity'

    def __init__(
        self,
        compares: str = 'features',
        feature: str = 'voxel',
        instance_weight: float = 1.0,
        channel_weight: float = 1.0,
        num_instances: int = 512,
        loss_weight: float = 1.0,
        free_index: int = FREE,
        loss_name: Optional[str] = None,
    ) -> None:
        super().__init__(loss_weight, loss_name)
        self.set_compared(compares, feature)
        self.instance_weight = instance_weight
        self.channel_weight = channel_weight
        self.num_instances = num_instances
        self.free_index = free_index

    def forward(self, student: Tensor, teacher: Tensor, batch: DistillBatch) -> Dict[str, Tensor]:
        """Loss dict with one loss; volumes (B, X, Y, Z, C)."""
        gt_occ = batch.require('gt_occ', type(self).__name__)
        mask_camera = batch.require('mask_camera', type(self).__name__)
        for name, volume in dict(student=student, teacher=teacher).items():
            check_shape(f'{name} without its channels', volume[..., 0], gt_occ.shape, 'gt_occ')
        occupied = (gt_occ != self.free_index) & mask_camera.bool()
        loss = connected_zero(student)
        for index, own in enumerate(occupied):
            voxels = own.flatten().nonzero().squeeze(1)
            order = torch.randperm(len(voxels), generator=batch.generator)
            voxels = voxels[order[: self.num_instances].to(voxels.device)]
            pair = [
                volume[index].flatten(0, -2).index_select(0, voxels)
                for volume in (student, teacher)
            ]
            if self.instance_weight:
                loss = loss + self.instance_weight * affinity_alignment(
                    *pair, inter_instance_affinity
                )
            if self.channel_weight:
                loss = loss + self.channel_weight * affinity_alignment(
                    *pair, inter_channel_affinity
                )
        loss = loss / max(len(student), 1)
        return {self.loss_name: self.loss_weight * loss}
