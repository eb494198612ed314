"""Occupancy head."""
from typing import Dict, Optional, Sequence

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from radocc_plugin.losses.occupancy import masked_cross_entropy
from radocc_plugin.occ3d import NUM_CLASSES
from radocc_plugin.registry import MODELS
from .bev_encoder import CONV_CFG


@MODELS.register_module()
class BEVOCCHead3D(BaseModule):
    """3 x 3 x 3 convolution and a per-voxel MLP, as in FlashOCC.

    Args:
        in_dim: Channels of the volume.
        out_dim: Channels after the convolution.
        num_classes: Classes C, free last.
        use_mask: Whether the loss is over camera-visible voxels only.
        class_weight: Weight of each class in the loss; all one by default.
        upsample: Each cell of the volume is predicted as ``upsample`` ** 3
            voxels by the last linear layer, so that a coarse volume gives
            logits on the fine grid; 1 as published.
    """

    def __init__(self,
                 in_dim: int = 32,
                 out_dim: int = 32,
                 num_classes: int = NUM_CLASSES,
                 use_mask: bool = True,
                 class_weight: Optional[Sequence[float]] = None,
                 upsample: int = 1,
                 init_cfg=None) -> None:
        super().__init__(init_cfg)
        self.final_conv = ConvModule(
            in_dim, out_dim, 3, padding=1, conv_cfg=CONV_CFG)
        self.predicter = nn.Sequential(
            nn.Linear(out_dim, out_dim * 2), nn.Softplus(),
            nn.Linear(out_dim * 2, num_classes * upsample**3))
        self.num_classes = num_classes
        self.use_mask = use_mask
        self.upsample = upsample
        self.register_buffer(
            'class_weight',
            None if class_weight is None else torch.tensor(class_weight),
            persistent=False)

    def forward(self, volume: Tensor) -> Tensor:
        """Logits (B, X, Y, Z, C) of a volume (B, in_dim, Z, Y, X)."""
        logits = self.predicter(
            self.final_conv(volume).permute(0, 4, 3, 2, 1))
        if self.upsample == 1:
            return logits
        u = self.upsample
        batch, nx, ny, nz, _ = logits.shape
        fine = logits.view(batch, nx, ny, nz, u, u, u, self.num_classes)
        return fine.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(
            batch, nx * u, ny * u, nz * u, self.num_classes)

    def loss(self, logits: Tensor,
             data_samples: Sequence) -> Dict[str, Tensor]:
        """``loss_occ`` against ``gt_occ`` of the data samples."""
        labels = torch.stack([s.gt_occ.semantics for s in data_samples])
        mask = torch.stack([s.gt_occ.mask_camera for s in data_samples
                            ]) if self.use_mask else None
        return dict(
            loss_occ=masked_cross_entropy(logits, labels.long(), mask,
                                          self.class_weight))
