"""Encoders of occupancy volumes, (B, C, Z, Y, X), and BEV maps (B, C, Y, X).

Parameters are named as in BEVDet dev2.1.
"""

from typing import Optional, Sequence, Tuple

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.models.backbones.resnet import BasicBlock
from mmengine.model import BaseModule
from torch import Tensor, nn

from radocc_plugin.models.recompute import run
from radocc_plugin.registry import MODELS

CONV_CFG = dict(type='radocc_plugin.Conv3d')
NORM_CFG = dict(type='BN3d')


class BasicBlock3D(BaseModule):
    """Residual block of two 3 x 3 x 3 convolutions.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Stride of the first convolution.
        downsample: Whether the shortcut is a convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, downsample: bool = False
    ) -> None:
        super().__init__()

        def conv(channels: int, stride: int, act_cfg: Optional[dict]):
            return ConvModule(
                channels,
                out_channels,
                3,
                stride=stride,
                padding=1,
                bias=False,
                conv_cfg=CONV_CFG,
                norm_cfg=NORM_CFG,
                act_cfg=act_cfg,
            )

        self.conv1 = conv(in_channels, stride, dict(type='ReLU'))
        self.conv2 = conv(out_channels, 1, None)
        self.downsample = conv(in_channels, stride, None) if downsample else nn.Identity()

    def forward(self, volume: Tensor) -> Tensor:
        out = self.conv2(self.conv1(volume))
        return F.relu(out + self.downsample(volume), inplace=True)


class _ResidualStages(BaseModule):
    """Stages of residual blocks.

    Args:
        numC_input: Input channels.
        num_layer: Number of blocks of each stage; a stage of none passes its
            input on.
        num_channels: Channels of each stage.
        stride: Stride of the first block of each stage.
        backbone_output_ids: Stages whose output is returned; all by default.
        with_cp: Whether blocks are computed again in the backward pass, which
            saves their activations.
    """

    def __init__(
        self,
        numC_input: int,
        num_layer: Sequence[int] = (2, 2, 2),
        num_channels: Sequence[int] = (32, 64, 128),
        stride: Sequence[int] = (2, 2, 2),
        backbone_output_ids: Optional[Sequence[int]] = None,
        with_cp: bool = False,
        init_cfg=None,
    ) -> None:
        super().__init__(init_cfg)
        if not len(num_layer) == len(num_channels) == len(stride):
            raise ValueError(
                'num_layer, num_channels and stride take one entry per stage, '
                f'got {num_layer}, {num_channels}, {stride}'
            )
        self.layers = nn.ModuleList()
        channels = numC_input
        for blocks, out_channels, step in zip(num_layer, num_channels, stride):
            stage = nn.Sequential()
            for _ in range(blocks):
                first = not len(stage)
                stage.append(self.build_block(channels, out_channels, step if first else 1, first))
                channels = out_channels
            self.layers.append(stage)
        self.backbone_output_ids = tuple(
            range(len(self.layers)) if backbone_output_ids is None else backbone_output_ids
        )
        self.with_cp = with_cp

    @staticmethod
    def build_block(
        in_channels: int, out_channels: int, stride: int, downsample: bool
    ) -> nn.Module:
        """A block; ``downsample`` asks for a convolution as shortcut."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        outputs = []
        for stage, layer in enumerate(self.layers):
            x = run(layer, x, with_cp=self.with_cp)
            if stage in self.backbone_output_ids:
                outputs.append(x)
        return tuple(outputs)


@MODELS.register_module()
class CustomResNet3D(_ResidualStages):
    """Residual 3D blocks on volumes, see ``_ResidualStages``."""

    build_block = staticmethod(BasicBlock3D)


@MODELS.register_module()
class CustomResNet(_ResidualStages):
    """Residual 2D blocks on BEV maps, see ``_ResidualStages``."""

    @staticmethod
    def build_block(
        in_channels: int, out_channels: int, stride: int, downsample: bool
    ) -> nn.Module:
        shortcut = (
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1) if downsample else None
        )
        return BasicBlock(in_channels, out_channels, stride, downsample=shortcut)


@MODELS.register_module()
class LSSFPN3D(BaseModule):
    """Upsamples all levels to the first, concatenates and mixes them.

    Args:
        in_channels: Sum of the levels' channels.
        out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int, init_cfg=None) -> None:
        super().__init__(init_cfg)
        self.conv = ConvModule(
            in_channels,
            out_channels,
            1,
            bias=False,
            conv_cfg=dict(type='Conv3d'),
            norm_cfg=NORM_CFG,
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        # The 1 x 1 x 1 convolution commutes with upsampling, so it runs on
        # each level's own grid: the wide concatenation, 0.6 GB at full size,
        # is never stored.
        weights = self.conv.conv.weight.split([x.shape[1] for x in levels], 1)
        mixed = F.conv3d(levels[0], weights[0])
        for level, weight in zip(levels[1:], weights[1:]):
            mixed = mixed + F.interpolate(
                F.conv3d(level, weight), mixed.shape[-3:], mode='trilinear', align_corners=True
            )  # as published
        return self.conv.activate(self.conv.norm(mixed))
