"""Occupancy head: a fine volume from levels that are weighed voxel by voxel.

B batch, L levels, C channels, K = 1 + the classes, X Y Z fine grid.
"""

from typing import Dict, Optional, Sequence, Union

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from radocc_plugin.losses.lovasz import lovasz_softmax
from radocc_plugin.losses.occupancy import (
    OCC3D_CLASS_FREQUENCIES,
    class_balanced_weights,
    focal_loss,
    labelled_mask,
    radial_weights,
    zero_nonfinite,
)
from radocc_plugin.losses.scene_class_affinity import geo_scal, sem_scal
from radocc_plugin.models.recompute import run
from radocc_plugin.occ3d import NUM_CLASSES
from radocc_plugin.registry import MODELS
from radocc_plugin.structures import check_use_mask, stack_mask

VOID = 1  # classes in front of those of the labels
LOSS_WEIGHTS = dict(focal=100.0, sem_scal=1.0, geo_scal=1.0, lovasz=1.0)


@MODELS.register_module()
class FBOccHead(BaseModule):
    """Predicts a grid twice as fine as that of the finest level.

    Logits have a void class, which no voxel is labelled with, in front of
    Occ3D's. Parameters are named as in FB-OCC's ``OccHead``.

    Args:
        in_channels: Channels of every level.
        channels: Channels C on the fine grid.
        hidden_channels: Channels before logits and level weights.
        num_levels: Levels L of the pyramid.
        upsample: Each cell of the fine grid is predicted as ``upsample`` ** 3
            voxels by the last convolution; 1 as published.
        num_classes: Classes without void, free last.
        class_frequencies: Voxels of each class, for the weights of the focal
            loss; those of Occ3D-nuScenes by default.
        loss_weights: Weights that differ from ``LOSS_WEIGHTS``, the published
            ones; 0 leaves a loss out.
        use_mask: Which voxels count, see ``structures.stack_mask``.
        with_cp: Whether the weighted levels are computed again in the backward
            pass instead of kept, which saves L volumes on the fine grid.

    Raises:
        ValueError: If ``loss_weights`` names another loss, or there is not
            one frequency a class.
    """

    def __init__(
        self,
        in_channels: int = 256,
        channels: int = 128,
        hidden_channels: int = 64,
        num_levels: int = 3,
        upsample: int = 1,
        num_classes: int = NUM_CLASSES,
        class_frequencies: Sequence[int] = OCC3D_CLASS_FREQUENCIES,
        loss_weights: Optional[Dict[str, float]] = None,
        use_mask: Union[bool, str] = True,
        with_cp: bool = False,
        init_cfg=None,
    ) -> None:
        super().__init__(init_cfg)
        self.deblock = nn.Sequential(
            nn.ConvTranspose3d(in_channels, channels, 2, 2, bias=False), *_norm_relu(channels)
        )
        self.occ_convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(in_channels, channels, 3, padding=1, bias=False), *_norm_relu(channels)
            )
            for _ in range(num_levels)
        )
        self.voxel_soft_weights = _per_voxel(channels, hidden_channels, 1 + num_levels)
        if len(class_frequencies) != num_classes:
            raise ValueError(
                f'class_frequencies take {num_classes} numbers, one a class, '
                f'got {len(class_frequencies)}; the default are those of '
                'Occ3D-nuScenes'
            )
        self.num_classes = num_classes
        self.upsample = upsample
        self.occ_pred_conv = _per_voxel(
            channels, hidden_channels, (VOID + num_classes) * upsample**3
        )
        unknown = set(loss_weights or ()) - set(LOSS_WEIGHTS)
        if unknown:
            raise ValueError(
                f'occupancy_head.loss_weights takes {sorted(LOSS_WEIGHTS)}, got {sorted(unknown)}'
            )
        self.loss_weights = {**LOSS_WEIGHTS, **(loss_weights or {})}
        self.register_buffer(
            'class_weight',
            class_balanced_weights(class_frequencies, void_first=True),
            persistent=False,
        )
        self.use_mask = check_use_mask(use_mask, type(self).__name__)
        self.with_cp = with_cp

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Logits (B, K, Y, X, Z) of levels (B, in_channels, Y_i, X_i, Z_i).

        Args:
            levels: Finest first; the finest has half the cells of the fine
                grid on each axis.
        """
        fine = self.deblock(levels[0])
        weights = self.voxel_soft_weights(fine).softmax(1)
        levels = [conv(x) for conv, x in zip(self.occ_convs, levels)]
        mixed = run(mix_levels, weights, fine, *levels, with_cp=self.with_cp)
        return split_cells(self.occ_pred_conv(mixed), self.upsample)

    def loss(self, logits: Tensor, data_samples: Sequence) -> Dict[str, Tensor]:
        """Losses over the labelled voxels of ``use_mask``.

        Args:
            logits: Shape (B, K, Y, X, Z); NaN and infinity count as 0, as
                published.
            data_samples: Samples with ``gt_occ``.
        """
        labels = torch.stack([s.gt_occ.semantics for s in data_samples]).long()
        mask = stack_mask(data_samples, self.use_mask)
        radial = radial_weights(labels.shape[1:3]).to(logits.device)
        mask = labelled_mask(labels, mask)
        if mask is None:
            mask = torch.ones_like(labels, dtype=torch.bool)
        # The visible voxels are looked up once for all losses: the host waits
        # for the number of them.
        kept = mask.flatten().nonzero().squeeze(1)
        rows = zero_nonfinite(logits.permute(0, 3, 2, 4, 1).flatten(0, -2).index_select(0, kept))
        target = labels.flatten()[kept] + VOID
        losses = dict(
            focal=lambda: focal_loss(
                rows,
                target,
                class_weight=self.class_weight,
                voxel_weight=radial[..., None].expand_as(labels).flatten()[kept],
            ),
            sem_scal=lambda: sem_scal(rows, target, void_index=0),
            geo_scal=lambda: geo_scal(rows, target),
            lovasz=lambda: lovasz_softmax(rows, target),
        )
        return {
            f'loss_{name}': weight * losses[name]()
            for name, weight in self.loss_weights.items()
            if weight
        }


def mix_levels(weights: Tensor, *levels: Tensor) -> Tensor:
    """Sum of levels, resized to the first, weighted voxel by voxel.

    Args:
        weights: Shape (B, L, Y, X, Z).
        levels: L volumes; the first has shape (B, C, Y, X, Z).
    """
    mixed = 0
    for weight, level in zip(weights.split(1, dim=1), levels):
        if level.shape[-3:] != weight.shape[-3:]:
            level = F.interpolate(
                level, size=weight.shape[-3:], mode='trilinear', align_corners=False
            )
        mixed = mixed + weight * level
    return mixed


def split_cells(logits: Tensor, factor: int) -> Tensor:
    """Cells (B, K * factor ** 3, Y, X, Z) as factor ** 3 voxels each."""
    if factor == 1:
        return logits
    batch, _, *shape = logits.shape
    voxels = logits.view(batch, -1, factor, factor, factor, *shape)
    voxels = voxels.permute(0, 1, 5, 2, 6, 3, 7, 4)
    return voxels.reshape(batch, -1, *(n * factor for n in shape))


def _norm_relu(channels: int) -> Sequence[nn.Module]:
    return nn.BatchNorm3d(channels), nn.ReLU(inplace=True)


def _per_voxel(channels: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels, hidden, 1, bias=False),
        *_norm_relu(hidden),
        nn.Conv3d(hidden, outputs, 1, bias=False),
    )
