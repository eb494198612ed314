"""Necks of image features and BEV maps."""

from typing import Optional, Sequence, Union

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from radocc_plugin.models.recompute import run
from radocc_plugin.registry import MODELS


@MODELS.register_module()
class CustomFPN(BaseModule):
    """Feature pyramid that returns its finest level only.

    The ``CustomFPN`` of BEVDet dev2.1 with ``start_level=0, num_outs=1,
    out_ids=[0]``, the only setting its configs use; same parameter names.

    Args:
        in_channels: Channels of the input levels, finest first.
        out_channels: Channels of the output.
        with_cp: Whether the neck is computed again in the backward pass,
            which saves its activations.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        with_cp: bool = False,
        init_cfg: Union[dict, list, None] = dict(
            type='Xavier', layer='Conv2d', distribution='uniform'
        ),
    ) -> None:
        super().__init__(init_cfg)
        self.with_cp = with_cp
        self.lateral_convs = nn.ModuleList(
            ConvModule(channels, out_channels, 1, act_cfg=None) for channels in in_channels
        )
        self.fpn_convs = nn.ModuleList(
            [ConvModule(out_channels, out_channels, 3, padding=1, act_cfg=None)]
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Fuses levels (B, C_i, H_i, W_i) into (B, out_channels, H_0, W_0)."""
        if len(levels) != len(self.lateral_convs):
            raise ValueError(
                f'in_channels names {len(self.lateral_convs)} levels, the '
                f'backbone gives {len(levels)}; check its out_indices'
            )
        return run(self._fuse, *levels, with_cp=self.with_cp)

    def _fuse(self, *levels: Tensor) -> Tensor:
        laterals = [conv(level) for conv, level in zip(self.lateral_convs, levels)]
        fused = laterals[-1]
        for lateral in reversed(laterals[:-1]):
            fused = lateral + F.interpolate(fused, size=lateral.shape[-2:])
        return self.fpn_convs[0](fused)


@MODELS.register_module()
class FPN_LSS(BaseModule):
    """Upsamples a coarse map to a finer one and mixes them.

    Neck of the Swin image backbone and of the 2D BEV encoder; parameters named
    as in BEVDet dev2.1.

    Args:
        in_channels: Channels of the two maps together.
        out_channels: Channels of the output.
        scale_factor: Size of the finer map over that of the coarser one.
        input_feature_index: The finer and the coarser of the input levels.
        extra_upsample: Factor by which the output is larger than the finer
            map; None for no such stage.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        scale_factor: int = 4,
        input_feature_index: Sequence[int] = (0, 2),
        extra_upsample: Optional[int] = 2,
        init_cfg=None,
    ) -> None:
        super().__init__(init_cfg)
        self.input_feature_index = tuple(input_feature_index)
        width = out_channels * (2 if extra_upsample else 1)
        self.up = _upsample(scale_factor)
        self.conv = nn.Sequential(
            *_conv_norm_relu(in_channels, width), *_conv_norm_relu(width, width)
        )
        self.up2 = (
            nn.Sequential(
                _upsample(extra_upsample),
                *_conv_norm_relu(width, out_channels),
                nn.Conv2d(out_channels, out_channels, 1),
            )
            if extra_upsample
            else nn.Identity()
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Fuses two of the levels (B, C_i, H_i, W_i)."""
        fine, coarse = (levels[index] for index in self.input_feature_index)
        coarse = self.up(coarse)
        if coarse.shape[-2:] != fine.shape[-2:]:
            raise ValueError(
                f'scale_factor {self.up.scale_factor:g} makes the coarser map '
                f'{tuple(coarse.shape[-2:])}, the finer one is '
                f'{tuple(fine.shape[-2:])}'
            )
        return self.up2(self.conv(torch.cat([fine, coarse], dim=1)))


def _upsample(factor: int) -> nn.Upsample:
    return nn.Upsample(scale_factor=factor, mode='bilinear', align_corners=True)


def _conv_norm_relu(in_channels: int, out_channels: int) -> Sequence:
    return [
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]
