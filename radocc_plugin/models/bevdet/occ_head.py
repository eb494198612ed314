"""Occupancy heads."""

from typing import Dict, Optional, Sequence, Tuple, Union

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from radocc_plugin.losses.lovasz import lovasz_softmax
from radocc_plugin.losses.occupancy import (
    class_balanced_weights,
    focal_loss,
    masked_cross_entropy,
    radial_weights,
)
from radocc_plugin.losses.scene_class_affinity import geo_scal, sem_scal
from radocc_plugin.models.bevdet.bev_encoder import CONV_CFG
from radocc_plugin.occ3d import NUM_CLASSES
from radocc_plugin.registry import MODELS
from radocc_plugin.structures import check_use_mask, stack_mask


class _OccHead(BaseModule):
    """A convolution, then an MLP per cell, with the loss on voxels.

    Args:
        in_dim: Channels of the input.
        out_dim: Channels after the convolution.
        predictions: Outputs of the MLP in each cell.
        num_classes: Classes C, free last.
        use_mask: Whether the loss is over camera-visible voxels only;
            ``'lidar'`` or ``'both'`` for other masks of the labels.
        class_weight: Weight of each class in the loss; all one by default.
        class_balance: FlashOcc's weights: the inverse logarithm of each
            class's frequency in Occ3D-nuScenes.

    Raises:
        ValueError: If both ``class_weight`` and ``class_balance`` are given,
            or there is not one weight a class.
    """

    conv_cfg: Optional[dict] = None

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        predictions: int,
        num_classes: int,
        use_mask: Union[bool, str] = True,
        class_weight: Optional[Sequence[float]] = None,
        class_balance: bool = False,
        init_cfg=None,
    ) -> None:
        super().__init__(init_cfg)
        self.final_conv = ConvModule(in_dim, out_dim, 3, padding=1, conv_cfg=self.conv_cfg)
        self.predicter = nn.Sequential(
            nn.Linear(out_dim, out_dim * 2), nn.Softplus(), nn.Linear(out_dim * 2, predictions)
        )
        self.num_classes = num_classes
        self.use_mask = check_use_mask(use_mask, type(self).__name__)
        if class_balance:
            if class_weight is not None:
                raise ValueError('class_balance brings its own class_weight; set one of them')
            class_weight = class_balanced_weights().tolist()
        if class_weight is not None and len(class_weight) != num_classes:
            raise ValueError(
                f'class_weight takes {num_classes} numbers, one a class, got '
                f'{len(class_weight)}; class_balance has those of '
                'Occ3D-nuScenes'
            )
        self.register_buffer(
            'class_weight',
            None if class_weight is None else torch.tensor(class_weight),
            persistent=False,
        )

    def loss(self, logits: Tensor, data_samples: Sequence) -> Dict[str, Tensor]:
        """See ``occ_loss``."""
        return occ_loss(logits, data_samples, self.use_mask, self.class_weight)


def occ_loss(
    logits: Tensor,
    data_samples: Sequence,
    use_mask: Union[bool, str],
    class_weight: Optional[Tensor],
) -> Dict[str, Tensor]:
    """``loss_occ`` against ``gt_occ`` of the data samples.

    Args:
        logits: Shape (B, X, Y, Z, C).
        data_samples: B samples.
        use_mask: Which voxels count, see ``structures.stack_mask``.
        class_weight: Weight of each class, shape (C,); all one if None.
    """
    labels, mask = stack_truth(data_samples, use_mask)
    return dict(loss_occ=masked_cross_entropy(logits, labels, mask, class_weight))


def stack_truth(
    data_samples: Sequence, use_mask: Union[bool, str]
) -> Tuple[Tensor, Optional[Tensor]]:
    """Labels of B samples and which voxels a camera sees, (B, X, Y, Z).

    Args:
        data_samples: B samples with ``gt_occ``.
        use_mask: Which voxels count, see ``structures.stack_mask``.
    """
    labels = torch.stack([s.gt_occ.semantics for s in data_samples]).long()
    return labels, stack_mask(data_samples, use_mask)


@MODELS.register_module()
class BEVOCCHead3D(_OccHead):
    """3 x 3 x 3 convolution and a per-voxel MLP, as in FlashOCC.

    Args:
        in_dim: Channels of the volume.
        out_dim: Channels after the convolution.
        num_classes: Classes C, free last.
        upsample: Each cell of the volume is predicted as ``upsample`` ** 3
            voxels by the last linear layer, so that a coarse volume gives
            logits on the fine grid; 1 as published.
        **kwargs: Arguments of ``_OccHead``.
    """

    conv_cfg = CONV_CFG

    def __init__(
        self,
        in_dim: int = 32,
        out_dim: int = 32,
        num_classes: int = NUM_CLASSES,
        upsample: int = 1,
        **kwargs,
    ) -> None:
        super().__init__(in_dim, out_dim, num_classes * upsample**3, num_classes, **kwargs)
        self.upsample = upsample

    def forward(self, volume: Tensor) -> Tensor:
        """Logits (B, X, Y, Z, C) of a volume (B, in_dim, Z, Y, X)."""
        logits = self.predicter(self.final_conv(volume).permute(0, 4, 3, 2, 1))
        if self.upsample == 1:
            return logits
        u = self.upsample
        batch, nx, ny, nz, _ = logits.shape
        fine = logits.view(batch, nx, ny, nz, u, u, u, self.num_classes)
        return fine.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(
            batch, nx * u, ny * u, nz * u, self.num_classes
        )


@MODELS.register_module()
class BEVOCCHead2D(_OccHead):
    """Channel to height: a BEV cell's MLP predicts the whole column.

    Args:
        in_dim: Channels of the BEV map.
        out_dim: Channels after the 3 x 3 convolution.
        num_classes: Classes C, free last.
        Dz: Voxels of a column.
        **kwargs: Arguments of ``_OccHead``.

    FlashOcc, arXiv 2311.12058, section 3.
    """

    def __init__(
        self,
        in_dim: int = 256,
        out_dim: int = 256,
        num_classes: int = NUM_CLASSES,
        Dz: int = 16,
        **kwargs,
    ) -> None:
        super().__init__(in_dim, out_dim, num_classes * Dz, num_classes, **kwargs)
        self.Dz = Dz

    def forward(self, bev: Tensor) -> Tensor:
        """Logits (B, X, Y, Dz, C) of a BEV map (B, in_dim, Y, X)."""
        columns = self.predicter(self.final_conv(bev).permute(0, 3, 2, 1))
        return columns.unflatten(-1, (self.Dz, self.num_classes))


@MODELS.register_module()
class BEVOCCHead2D_V2(BEVOCCHead2D):
    """Channel to height with FB-OCC's four losses, as in Panoptic-FlashOcc.

    Args:
        use_mask: Whether the losses are over camera-visible voxels only;
            published weights were trained without.
        class_balance: Whether classes weigh by their inverse logarithmic
            frequency in the focal loss.
        **kwargs: Arguments of ``BEVOCCHead2D``.

    FlashOCC @4084861; Panoptic-FlashOcc, arXiv 2406.10527.
    """

    def __init__(
        self, *args, use_mask: Union[bool, str] = False, class_balance: bool = True, **kwargs
    ) -> None:
        super().__init__(*args, use_mask=use_mask, class_balance=class_balance, **kwargs)

    def loss(self, logits: Tensor, data_samples: Sequence) -> Dict[str, Tensor]:
        """Focal, semantic and geometric affinity and Lovasz losses.

        Args:
            logits: Shape (B, X, Y, Z, C).
            data_samples: B samples with ``gt_occ``.
        """
        labels, mask = stack_truth(data_samples, self.use_mask)
        radial = radial_weights(labels.shape[1:3]).to(logits.device)
        return dict(
            loss_occ=100 * focal_loss(logits, labels, mask, self.class_weight, radial[..., None]),
            loss_sem_scal=sem_scal(logits, labels, mask),
            loss_geo_scal=geo_scal(logits, labels, mask),
            loss_lovasz=lovasz_softmax(logits, labels, mask),
        )
