"""Registered occupancy losses: ``loss(logits, labels, mask) -> Tensor``.

Thin: the functions of the same names say what is computed.
"""

from typing import Optional, Sequence, Union

import torch
from mmengine.model import BaseModule
from torch import Tensor

from radocc_plugin.losses.lovasz import lovasz_softmax
from radocc_plugin.losses.occupancy import (
    class_balanced_weights,
    focal_loss,
    masked_cross_entropy,
    radial_weights,
)
from radocc_plugin.losses.scene_class_affinity import geo_scal, sem_scal
from radocc_plugin.registry import MODELS

ClassWeight = Union[None, str, Sequence[float]]


class _OccLoss(BaseModule):
    """Holds the weight of the loss and of the classes.

    Args:
        loss_weight: Factor of the loss.
        class_weight: One number a class; ``'balanced'`` for
            ``class_balanced_weights()`` of Occ3D, ``'balanced_with_void'``
            for the same behind a void class of weight 0 (FB-OCC).

    Raises:
        ValueError: If ``class_weight`` is another word.
    """

    def __init__(self, loss_weight: float = 1.0, class_weight: ClassWeight = None) -> None:
        super().__init__()
        weight: Optional[Tensor] = None
        if class_weight in ('balanced', 'balanced_with_void'):
            weight = class_balanced_weights(void_first=class_weight == 'balanced_with_void')
        elif isinstance(class_weight, str):
            raise ValueError(
                f'{type(self).__name__}.class_weight takes a list of numbers, '
                "'balanced' or 'balanced_with_void', got "
                f'{class_weight!r}'
            )
        elif class_weight is not None:
            weight = torch.tensor(class_weight, dtype=torch.float)
        self.loss_weight = loss_weight
        # Follows the device, belongs to no checkpoint.
        self.register_buffer('class_weight', weight, persistent=False)


@MODELS.register_module()
class OccCrossEntropy(_OccLoss):
    """``masked_cross_entropy``; see there and ``_OccLoss``."""

    def forward(self, logits: Tensor, labels: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Scalar loss of logits (B, X, Y, Z, C)."""
        return self.loss_weight * masked_cross_entropy(logits, labels, mask, self.class_weight)


@MODELS.register_module()
class OccFocal(_OccLoss):
    """``focal_loss``, by default with FB-OCC's factor of 100.

    Args:
        radial: Weighs voxels by ``radial_weights`` of their column.
        gamma, alpha: See ``focal_loss``.
    """

    def __init__(
        self,
        loss_weight: float = 100.0,
        class_weight: ClassWeight = None,
        radial: bool = False,
        gamma: float = 2.0,
        alpha: float = 0.25,
    ) -> None:
        super().__init__(loss_weight, class_weight)
        self.radial = radial
        self.gamma = gamma
        self.alpha = alpha

    def forward(self, logits: Tensor, labels: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Scalar loss of logits (B, X, Y, Z, C)."""
        weight = None
        if self.radial:
            weight = radial_weights((logits.shape[1], logits.shape[2])).to(logits.device)
            weight = weight[..., None]
        return self.loss_weight * focal_loss(
            logits, labels, mask, self.class_weight, weight, self.gamma, self.alpha
        )


@MODELS.register_module()
class OccLovasz(_OccLoss):
    """``lovasz_softmax``.

    Args:
        per_sample: See ``lovasz_softmax``.
    """

    def __init__(self, loss_weight: float = 1.0, per_sample: bool = False) -> None:
        super().__init__(loss_weight)
        self.per_sample = per_sample

    def forward(self, logits: Tensor, labels: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Scalar loss of logits (B, X, Y, Z, C)."""
        return self.loss_weight * lovasz_softmax(logits, labels, mask, self.per_sample)


@MODELS.register_module()
class OccSemScal(_OccLoss):
    """``sem_scal``.

    Args:
        free_index, void_index: See ``sem_scal``.
    """

    def __init__(
        self, loss_weight: float = 1.0, free_index: int = -1, void_index: Optional[int] = None
    ) -> None:
        super().__init__(loss_weight)
        self.free_index = free_index
        self.void_index = void_index

    def forward(self, logits: Tensor, labels: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Scalar loss of logits (B, X, Y, Z, C)."""
        return self.loss_weight * sem_scal(logits, labels, mask, self.free_index, self.void_index)


@MODELS.register_module()
class OccGeoScal(_OccLoss):
    """``geo_scal``.

    Args:
        free_index: See ``geo_scal``.
    """

    def __init__(self, loss_weight: float = 1.0, free_index: int = -1) -> None:
        super().__init__(loss_weight)
        self.free_index = free_index

    def forward(self, logits: Tensor, labels: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Scalar loss of logits (B, X, Y, Z, C)."""
        return self.loss_weight * geo_scal(logits, labels, mask, self.free_index)
