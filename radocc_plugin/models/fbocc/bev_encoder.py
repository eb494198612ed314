"""3D residual encoder and 3D feature pyramid on volumes (B, C, Y, X, Z)."""

from typing import List, Sequence, Union

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from radocc_plugin.models.recompute import run
from radocc_plugin.registry import MODELS


class _BasicBlock3D(nn.Module):
    """Two 3 x 3 x 3 convolutions, with biases as published, and a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, channels, 3, stride, padding=1)
        self.bn1 = nn.BatchNorm3d(channels)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm3d(channels)
        self.downsample = (
            nn.Sequential(nn.Conv3d(in_channels, channels, 1, stride), nn.BatchNorm3d(channels))
            if stride != 1 or in_channels != channels
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.downsample(x), inplace=True)


@MODELS.register_module()
class ResNet3D(BaseModule):
    """Residual encoder of a volume, every stage an output level.

    The ``CustomResNet3D`` of FB-OCC (BEVDet's of that name differs), which has
    two blocks a stage, a ResNet-18; same parameter names.

    Args:
        in_channels: Channels of the volume.
        channels: Channels of the stages.
        strides: Strides of the stages.
        num_blocks: Blocks of the stages.
        with_cp: Whether stages are computed again in the backward pass,
            which saves their activations.
    """

    def __init__(
        self,
        in_channels: int = 80,
        channels: Sequence[int] = (64, 128, 256),
        strides: Sequence[int] = (1, 2, 2),
        num_blocks: Sequence[int] = (2, 2, 2),
        with_cp: bool = False,
        init_cfg: Union[dict, list, None] = dict(type='Kaiming', layer='Conv3d'),
    ) -> None:
        super().__init__(init_cfg)
        self.with_cp = with_cp
        self.input_proj = nn.Sequential(
            nn.Conv3d(in_channels, channels[0], 1, bias=False),
            nn.BatchNorm3d(channels[0]),
            nn.ReLU(inplace=True),
        )
        self.layers = nn.ModuleList()
        width = channels[0]
        for out, stride, blocks in zip(channels, strides, num_blocks):
            self.layers.append(
                nn.Sequential(
                    *(
                        _BasicBlock3D(out if block else width, out, 1 if block else stride)
                        for block in range(blocks)
                    )
                )
            )
            width = out

    def forward(self, volume: Tensor) -> List[Tensor]:
        """Levels (B, channels[i], Y_i, X_i, Z_i), finest first."""
        levels = [self.input_proj(volume)]
        for layer in self.layers:
            levels.append(run(layer, levels[-1], with_cp=self.with_cp))
        return levels[1:]


@MODELS.register_module()
class FPN3D(BaseModule):
    """Feature pyramid of volumes; parameters named as in FB-OCC.

    Args:
        in_channels: Channels of the levels, finest first.
        out_channels: Channels of every output.
        with_cp: Whether the convolutions are computed again in the backward
            pass, which saves their activations.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (64, 128, 256),
        out_channels: int = 256,
        with_cp: bool = False,
        init_cfg=None,
    ) -> None:
        super().__init__(init_cfg)
        self.with_cp = with_cp
        kinds = dict(conv_cfg=dict(type='Conv3d'), norm_cfg=dict(type='BN3d'))
        self.lateral_convs = nn.ModuleList(
            nn.Sequential(ConvModule(channels, out_channels, 1, **kinds))
            for channels in in_channels
        )
        self.fpn_convs = nn.ModuleList(
            nn.Sequential(ConvModule(out_channels, out_channels, 3, padding=1, **kinds))
            for _ in in_channels
        )

    def forward(self, levels: Sequence[Tensor]) -> List[Tensor]:
        """As many levels, of ``out_channels`` each."""
        levels = [run(conv, x, with_cp=self.with_cp) for conv, x in zip(self.lateral_convs, levels)]
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + F.interpolate(
                levels[i], size=levels[i - 1].shape[-3:], mode='trilinear', align_corners=False
            )
        return [run(conv, x, with_cp=self.with_cp) for conv, x in zip(self.fpn_convs, levels)]
