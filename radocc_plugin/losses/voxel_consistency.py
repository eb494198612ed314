"""What the rays see of two volumes, compared voxel by voxel.

B batch, X Y Z grid, C classes, V voxels.
"""

from dataclasses import replace
from typing import Dict, Optional, Sequence, Tuple

import torch
from torch import Tensor

from radocc_plugin.losses.base import DistillBatch, DistillLoss, ModelOutputs
from radocc_plugin.losses.common import check_choice, check_shape, full_precision
from radocc_plugin.registry import MODELS

LIGHTS = ('entered', 'ended', 'share', 'shuffled')


# Objects, background and free space of ``regions_of``.
NUM_REGIONS = 3


@full_precision
def voxel_kl(
    student: Tensor, teacher: Tensor, free: Optional[int] = None, free_factor: float = 1.0
) -> Tensor:
    """KL(teacher || student) of the classes of each voxel.

    Weighted with the light that enters each voxel, its sum is what the rays
    see: the divergence of the joint distribution of the voxel where a ray
    ends and of its class, exactly where every crossing has one length. It
    takes one walk of the teacher and no render of the student.

    Args:
        student: Logits, (V, C).
        teacher: The same of the teacher, (V, C); detached.
        free: The free class; only for ``free_factor``.
        free_factor: Factor of the free class's part. The parts are those of
            the generalised KL, ``p_t log(p_t / p_s) - p_t + p_s``, whose sum
            is the KL: each is >= 0 and 0 where the two agree, so that the
            teacher stays the minimum whatever the factor.

    Returns:
        Nats, (V,).

    Raises:
        ValueError: If shapes disagree.
    """
    check_shape('teacher', teacher, student.shape, 'student')
    log_teacher = teacher.detach().log_softmax(-1)
    log_student = student.log_softmax(-1)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(-1)
    if free is None or free_factor == 1:
        return divergence
    own, target = log_student[:, free], log_teacher[:, free]
    free_part = target.exp() * (target - own) - target.exp() + own.exp()
    return divergence + (free_factor - 1) * free_part


@full_precision
def weighted_mean(values: Tensor, weight: Tensor, region: Optional[Tensor] = None) -> Tensor:
    """Weighted mean over voxels, or the mean over regions of their means.

    Args:
        values: (V,).
        weight: Weight of each voxel, >= 0, (V,); detached.
        region: Region of each voxel, int64, (V,), see ``regions_of``: the
            many voxels of free space do not outvote the few of objects.
            None for one region.

    Returns:
        Scalar; a connected zero where nothing weighs.
    """
    weight = weight.detach().to(values.dtype)
    if region is None:
        return (weight * values).sum() / weight.sum().clamp_min(1e-6)
    zeros = values.new_zeros(NUM_REGIONS)
    sums = zeros.index_add(0, region, weight * values)
    weights = zeros.index_add(0, region, weight)
    return (sums / weights.clamp_min(1e-6)).sum() / (weights > 0).sum().clamp_min(1)


def regions_of(classes: Tensor, objects: Sequence[int], free: int) -> Tensor:
    """0 for voxels of an object class, 2 for free ones, 1 for the rest.

    Args:
        classes: Class of each voxel, int64, (V,).
        objects: The object classes.
        free: The free class.

    The regions of EFFOcc's balanced distillation (arXiv 2406.07042).
    """
    is_object = torch.isin(classes, torch.tensor(objects, device=classes.device))
    region = torch.where(classes == free, 2, 1)
    return region.masked_fill(is_object, 0)


@MODELS.register_module()
class RenderedVoxelConsistency(DistillLoss):
    """Rendered consistency, voxel by voxel: KL(teacher || student) of the
    classes of the voxels that the teacher's rays reach.

    Every voxel weighs by the teacher's light ``n`` in it::

        loss = sum_v w_v KL(teacher_v || student_v) / sum_v w_v

    with ``w = n``, capped at ``cap``, and times the class weight that the
    student's own cross entropy gives to what the teacher expects there
    (``class_balance``): labels and teacher then pull with one balance of
    classes. The teacher's class weights are exchanged for the student's
    before, so its softmax is that of a teacher trained with them.

    Where a frame has labels, hidden voxels count as the rays reach them, or
    only with ``observed='mask_camera'`` not at all.

    Args:
        loss_weight: Weight on frames without labels.
        labelled_factor: Factor of it on frames with labels, which teach the
            same voxels better.
        light: Which light weighs: ``'entered'`` compares free space up to
            the first surface and the surface, ``'ended'`` surfaces only,
            ``'share'`` is the entered light over the rays that cross the
            voxel, at most 1 near and far;
            ``'shuffled'`` is a control, the entered light of each sample
            dealt out among its voxels at random.
        cap: Largest light of a voxel, in rays of the full render; None for
            none. Rays are uniform over pixels, so near voxels hold thousands
            and far ones less than one.
        min_light: Voxels with less are left out.
        class_balance: See above.
        observed: Where labelled frames are compared: ``'light'``, or
            ``'mask_camera'`` for the voxels that the labels observed, too.
        gate: Whether voxels of labelled frames count only where the teacher
            agrees with the label.
        occupied_only: Whether the free class is left out of the two
            distributions: classes given that something is there.
        hard: Whether the teacher is taken for its most probable class.
        objects: Classes of objects: objects, background and free space are
            averaged apart if given.
        free_index: Class of free space.
        free_factor: Factor of the free class's part of the divergence, see
            ``voxel_kl``; 0 leaves only what the teacher holds for occupied.

    Raises:
        ValueError: If an argument is not valid.
    """

    compares = 'outputs'
    needs: Tuple[str, ...] = ('light', 'gt_occ', 'mask_camera')
    loss_name = 'loss_voxel'

    def __init__(
        self,
        loss_weight: float = 1.0,
        labelled_factor: float = 1.0,
        light: str = 'entered',
        cap: Optional[float] = 1.0,
        min_light: float = 0.5,
        class_balance: bool = True,
        observed: str = 'light',
        gate: bool = False,
        occupied_only: bool = False,
        hard: bool = False,
        objects: Optional[Sequence[int]] = None,
        free_index: int = -1,
        loss_name: Optional[str] = None,
        free_factor: float = 1.0,
    ) -> None:
        super().__init__(loss_weight, loss_name)
        name = type(self).__name__
        check_choice(f'{name}.light', light, LIGHTS)
        check_choice(f'{name}.observed', observed, ('light', 'mask_camera'))
        for field, value in (
            ('labelled_factor', labelled_factor),
            ('min_light', min_light),
            ('free_factor', free_factor),
        ):
            if value < 0:
                raise ValueError(f'{name}.{field} takes a number >= 0, got {value}')
        if occupied_only and free_factor != 1:
            raise ValueError(
                f'{name}.free_factor takes 1 with occupied_only=True, which leaves the free '
                f'class out, got {free_factor}'
            )
        if light == 'shuffled':
            self.needs = (*self.needs, 'generator')
        if cap is not None and cap <= 0:
            raise ValueError(f'{name}.cap takes a positive number or None, got {cap}')
        self.labelled_factor = labelled_factor
        self.light = light
        self.cap = cap
        self.min_light = min_light
        self.class_balance = class_balance
        self.observed = observed
        self.gate = gate
        self.occupied_only = occupied_only
        self.hard = hard
        self.objects = objects
        self.free_index = free_index
        self.free_factor = free_factor

    def forward(
        self, student: ModelOutputs, teacher: ModelOutputs, batch: DistillBatch
    ) -> Dict[str, Tensor]:
        """Loss dict with one loss; logits (B, X, Y, Z, C)."""
        logits = student.occ_logits
        check_shape('teacher', teacher.occ_logits, logits.shape, 'student')
        gt_occ = batch.require('gt_occ', type(self).__name__)
        mask_camera = batch.require('mask_camera', type(self).__name__)
        light = self._light(batch)
        factor = torch.where(labelled(mask_camera), self.labelled_factor, 1.0)
        # Few voxels see light: all that follows is done for them alone.
        kept = (light > 0).flatten().nonzero().squeeze(1)
        light, factor, visible, gt_occ = (
            x.expand(light.shape).flatten()[kept]
            for x in (light, factor, mask_camera.bool(), gt_occ)
        )
        rows = logits.flatten(0, -2).index_select(0, kept)
        target = with_class_weights(
            replace(teacher, occ_logits=teacher.occ_logits.flatten(0, -2).index_select(0, kept)),
            student.class_weight,
        )
        weight = light
        if self.gate:
            weight = weight * ((target.argmax(-1) == gt_occ) | ~visible)
        if self.class_balance and student.class_weight is not None:
            # Expected class weight: frequency times weight, summed.
            inverse = 1 / target.new_tensor(student.class_weight)
            weight = weight / (target.softmax(-1) @ inverse)
        free = self.free_index % logits.shape[-1]
        region = None
        if self.objects is not None:
            region = regions_of(target.argmax(-1), self.objects, free)
        if self.occupied_only:
            rows, target = (
                torch.cat((x[:, :free], x[:, free + 1 :]), dim=1) for x in (rows, target)
            )
        if self.hard:
            target = one_class_logits(target.argmax(-1), target.shape[1])
        divergence = voxel_kl(rows, target, None if self.occupied_only else free, self.free_factor)
        loss = weighted_mean(factor * divergence, weight, region)
        return {self.loss_name: self.loss_weight * loss}

    def _light(self, batch: DistillBatch) -> Tensor:
        """Light by which each voxel weighs, 0 for those that do not count,
        (B, X, Y, Z)."""
        rays = batch.require('light', type(self).__name__)
        light = rays.ended if self.light == 'ended' else rays.entered
        if self.light == 'shuffled':
            light = shuffled(light, batch.require('generator', type(self).__name__))
        light = light * (light > self.min_light)
        if self.light == 'share':
            if rays.crossed is None:
                raise ValueError(
                    f"{type(self).__name__}.light='share' takes a light with the rays that cross "
                    'each voxel: VolumeRenderer.light(crossed=True)'
                )
            light = light / rays.crossed.clamp_min(1e-6)
        if self.cap is not None:
            light = light.clamp_max(self.cap)
        if self.observed == 'mask_camera':
            visible = batch.require('mask_camera', type(self).__name__).bool()
            light = light * (visible | ~labelled(visible))
        return light


def shuffled(light: Tensor, generator: torch.Generator) -> Tensor:
    """Each sample's values dealt out anew among its voxels, (B, X, Y, Z)."""
    flat = light.flatten(1)
    order = torch.stack([torch.randperm(flat.shape[1], generator=generator) for _ in flat])
    return flat.gather(1, order.to(light.device)).view_as(light)


def labelled(mask_camera: Tensor) -> Tensor:
    """Which samples have labels: those with a visible voxel,
    (B, X, Y, Z) -> (B, 1, 1, 1)."""
    return mask_camera.bool().flatten(1).any(1)[:, None, None, None]


def with_class_weights(teacher: ModelOutputs, class_weight: Optional[Sequence[float]]) -> Tensor:
    """The teacher's logits as if its cross entropy had had other weights.

    Args:
        teacher: The teacher's outputs.
        class_weight: Weights of the C classes; None for equal ones.

    Returns:
        Logits, at least float32, detached, of the teacher's shape.

    Raises:
        ValueError: If there is not one weight a class.

    Logit adjustment, Menon et al., ICLR 2021.
    """
    logits = teacher.occ_logits.detach()
    if logits.dtype != torch.float64:
        logits = logits.float()
    if teacher.class_weight == class_weight:
        return logits
    for weight, sign in ((teacher.class_weight, -1), (class_weight, 1)):
        if weight is None:
            continue
        if len(weight) != logits.shape[-1]:
            raise ValueError(
                f'class_weight takes {logits.shape[-1]} numbers, one a class, got {len(weight)}'
            )
        logits = logits + sign * logits.new_tensor(weight).log()
    return logits


def one_class_logits(classes: Tensor, num_classes: int) -> Tensor:
    """Logits of distributions that are sure of one class, (V, C)."""
    logits = torch.full((len(classes), num_classes), -1e4, device=classes.device)
    return logits.scatter(1, classes[:, None], 0.0)
