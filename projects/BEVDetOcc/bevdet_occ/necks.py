"""Image necks."""
from typing import Sequence

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from radocc_plugin.registry import MODELS


@MODELS.register_module()
class CustomFPN(BaseModule):
    """Feature pyramid that returns its finest level only.

    The ``CustomFPN`` of BEVDet dev2.1 with ``start_level=0, num_outs=1,
    out_ids=[0]``, the only setting its configs use; same parameter names.

    Args:
        in_channels: Channels of the input levels, finest first.
        out_channels: Channels of the output.
    """

    def __init__(self,
                 in_channels: Sequence[int],
                 out_channels: int,
                 init_cfg=None) -> None:
        super().__init__(init_cfg)
        self.lateral_convs = nn.ModuleList(
            ConvModule(channels, out_channels, 1, act_cfg=None)
            for channels in in_channels)
        self.fpn_convs = nn.ModuleList([
            ConvModule(
                out_channels, out_channels, 3, padding=1, act_cfg=None)
        ])

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Fuses levels (B, C_i, H_i, W_i) into (B, out_channels, H_0, W_0)."""
        if len(levels) != len(self.lateral_convs):
            raise ValueError(
                f'in_channels names {len(self.lateral_convs)} levels, the '
                f'backbone gives {len(levels)}; check its out_indices')
        laterals = [
            conv(level) for conv, level in zip(self.lateral_convs, levels)
        ]
        fused = laterals[-1]
        for lateral in reversed(laterals[:-1]):
            fused = lateral + F.interpolate(fused, size=lateral.shape[-2:])
        return self.fpn_convs[0](fused)
