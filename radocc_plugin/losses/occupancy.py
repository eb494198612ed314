"""Supervised losses on occupancy logits, voxel by voxel.

B batch, X Y Z grid, C classes, V visible voxels.
"""

from typing import Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from radocc_plugin.label_space import UNLABELLED
from radocc_plugin.losses.common import check_shape, connected_zero, visible_rows

# Voxels of each class in the training set of Occ3D-nuScenes.
OCC3D_CLASS_FREQUENCIES = (
    944004,
    1897170,
    152386,
    2391677,
    16957802,
    724139,
    189027,
    2074468,
    413451,
    2384460,
    5916653,
    175883646,
    4275424,
    51393615,
    61411620,
    105975596,
    116424404,
    1892500630,
)


def visible_voxels(logits: Tensor, labels: Tensor, mask: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
    """Logits (V, C), at least float32, and labels (V,) of the voxels that
    count: those of the mask, all if None, that have a label.

    Raises:
        ValueError: If shapes disagree.
    """
    check_shape('labels', labels, logits.shape[:-1], 'logits')
    mask = labelled_mask(labels, mask)
    logits, labels = logits.flatten(0, -2), labels.flatten()
    if mask is not None:
        # Looked up once: the host waits for the number of them.
        kept = mask.flatten().nonzero().squeeze(1)
        logits, labels = (x.index_select(0, kept) for x in (logits, labels))
    labels = labels.long()
    return logits if logits.dtype == torch.double else logits.float(), labels


def labelled_mask(labels: Tensor, mask: Optional[Tensor]) -> Optional[Tensor]:
    """The mask without voxels labelled 255; None if all voxels count.

    A turned or scaled ego frame leaves such voxels (``AugmentBEV``).

    Args:
        labels: Labels, any integer dtype, shape (...).
        mask: Voxels that count, shape (...); all if None.

    Raises:
        ValueError: If shapes disagree.
    """
    labelled = labels != UNLABELLED
    if mask is not None:
        check_shape('mask', mask, labels.shape, 'labels')
        return labelled & mask.bool()
    # None spares the copy of all logits
    return None if bool(labelled.all()) else labelled


def zero_nonfinite(logits: Tensor) -> Tensor:
    """Logits with 0 for NaN and infinity.

    FB-OCC does so before its losses (FB-BEV @6e25469); elsewhere such logits
    are a fault that shall show.
    """
    return logits.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def masked_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    mask: Optional[Tensor] = None,
    class_weight: Optional[Tensor] = None,
) -> Tensor:
    """Mean cross entropy over the visible voxels.

    The mask is applied before the softmax, so hidden voxels cost nothing.

    Args:
        logits: Occupancy logits, shape (B, X, Y, Z, C).
        labels: Classes in [0, C), any integer dtype, shape (B, X, Y, Z);
            255 (unlabelled) does not count.
        mask: Voxels that count, bool, shape (B, X, Y, Z); all if None.
        class_weight: Weight of each class, shape (C,); the mean is then
            divided by the sum of the weights of the counted voxels.

    Returns:
        Scalar loss in at least float32. An empty mask gives a zero that is
        still connected to ``logits``.

    Raises:
        ValueError: If shapes disagree.

    BEVDet-Occ ``loss_occ`` (dev2.1 @f71858d), BEVFormer-Occ (CVPR2023-Occ
    @4781df9) and FlashOcc's ``class_balance``.
    """
    rows, labels = visible_voxels(logits, labels, mask)
    if not len(rows):
        return connected_zero(logits)
    return F.cross_entropy(rows, labels, weight=class_weight)


def class_balanced_weights(
    class_frequencies: Sequence[int] = OCC3D_CLASS_FREQUENCIES, void_first: bool = False
) -> Tensor:
    """Weight 1 / ln(frequency + 0.001) of each class.

    Args:
        class_frequencies: Voxels of each class, C numbers.
        void_first: Puts a class of weight 0 before the others, as FB-OCC.

    Returns:
        Weights, float32, shape (C,), or (C + 1,) with void.

    Raises:
        ValueError: If a frequency is below 2, where the weight is no number
            or negative.

    FlashOcc @4084861, FB-BEV @6e25469.
    """
    frequencies = torch.tensor(class_frequencies, dtype=torch.double)
    if len(frequencies) == 0 or float(frequencies.min()) < 2:
        raise ValueError(f'class_frequencies take numbers of at least 2, got {class_frequencies}')
    weights = 1 / (frequencies + 0.001).log()
    return F.pad(weights, (int(void_first), 0)).float()


def radial_weights(shape: Tuple[int, int]) -> Tensor:
    """Weight of each column, from 1 at the ego to 2 at the farthest corner.

    Args:
        shape: Cells (X, Y) of the ground plane.

    Returns:
        ``1 + r / max(r)``, float32, shape (X, Y). The distance r counts cells
        from index (X / 2, Y / 2), half a cell off the centre.

    FB-OCC ``CustomFocalLoss`` (FB-BEV @6e25469), there for 200 x 200 only.
    """
    x = torch.arange(shape[0]) - shape[0] / 2
    y = torch.arange(shape[1]) - shape[1] / 2
    radius = torch.hypot(x[:, None], y[None])
    return 1 + radius / radius.max()


def focal_loss(
    logits: Tensor,
    labels: Tensor,
    mask: Optional[Tensor] = None,
    class_weight: Optional[Tensor] = None,
    voxel_weight: Optional[Tensor] = None,
    gamma: float = 2.0,
    alpha: float = 0.25,
) -> Tensor:
    """Sigmoid focal loss, one binary decision a class.

    Args:
        logits: Occupancy logits, shape (B, X, Y, Z, C).
        labels: Classes in [0, C), shape (B, X, Y, Z).
        mask: Voxels that count, bool, shape (B, X, Y, Z); all if None.
        class_weight: Weight of the decision on each class, shape (C,).
        voxel_weight: Weight of each voxel, broadcast to (B, X, Y, Z).
        gamma: Power that plays down easy decisions.
        alpha: Share of the positive decisions.

    Returns:
        Sum over classes, mean over the visible voxels (the weights do not
        enter the divisor). A connected zero for an empty mask.

    Raises:
        ValueError: If shapes disagree.

    Lin et al., arXiv 1708.02002; FB-OCC multiplies by 100.
    """
    rows, target = visible_voxels(logits, labels, mask)
    if not len(rows):
        return connected_zero(logits)
    positive = F.one_hot(target, rows.shape[1]).to(rows.dtype)
    probability = rows.sigmoid()
    miss = torch.where(positive > 0, 1 - probability, probability)
    share = torch.where(positive > 0, alpha, 1 - alpha)
    loss = (
        F.binary_cross_entropy_with_logits(rows, positive, reduction='none') * share * miss**gamma
    )
    if class_weight is not None:
        check_shape('class_weight', class_weight, rows.shape[1:], 'the classes of logits')
        loss = loss * class_weight
    loss = loss.sum(1)
    if voxel_weight is not None:
        weight = voxel_weight.expand(labels.shape)[..., None]
        loss = loss * visible_rows(weight, labelled_mask(labels, mask)).squeeze(1)
    return loss.mean()
