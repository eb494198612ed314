"""Camera-aware depth and context prediction (BEVDepth's DepthNet).

Parameters are named as in BEVDet dev2.1.
"""

from typing import Optional

import torch
import torch.nn.functional as F
from mmdet.models.backbones.resnet import BasicBlock
from torch import Tensor, nn

from radocc_plugin.models.recompute import run

CAMERA_CHANNELS = 27  # ViewGeometry.depth_net_input


class _AtrousConv(nn.Module):
    """Dilated convolution, norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int) -> None:
        super().__init__()
        kernel = 1 if dilation == 1 else 3
        self.atrous_conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            padding=0 if dilation == 1 else dilation,
            dilation=dilation,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.atrous_conv(x)))


class _ASPP(nn.Module):
    """Atrous spatial pyramid with dilations 1, 6, 12, 18 and a global pool."""

    def __init__(self, channels: int, mid_channels: int) -> None:
        super().__init__()
        self.aspp1 = _AtrousConv(channels, mid_channels, 1)
        self.aspp2 = _AtrousConv(channels, mid_channels, 6)
        self.aspp3 = _AtrousConv(channels, mid_channels, 12)
        self.aspp4 = _AtrousConv(channels, mid_channels, 18)
        self.global_avg_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, mid_channels, 1, bias=False),
            nn.BatchNorm2d(mid_channels),
            nn.ReLU(),
        )
        self.conv1 = nn.Conv2d(mid_channels * 5, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(0.5)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.global_avg_pool(x).expand(-1, -1, *x.shape[-2:])
        branches = [self.aspp1(x), self.aspp2(x), self.aspp3(x), self.aspp4(x), pooled]
        out = self.bn1(self.conv1(torch.cat(branches, dim=1)))
        return self.dropout(F.relu(out))


class _CameraMLP(nn.Module):
    """Embeds the camera description."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(CAMERA_CHANNELS, channels)
        self.fc2 = nn.Linear(channels, channels)

    def forward(self, camera: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(camera)))


class _CameraGate(nn.Module):
    """Scales the channels of a feature map by the embedded camera."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, channels, 1)
        self.conv_expand = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, camera: Tensor) -> Tensor:
        gate = self.conv_expand(F.relu(self.conv_reduce(camera)))
        return x * gate.sigmoid()


class DepthNet(nn.Module):
    """Depth logits and context features, both aware of the camera.

    Args:
        in_channels: Channels of the image features.
        mid_channels: Width of the net.
        context_channels: Channels C of the context.
        depth_channels: Number of depth bins D.
        aspp_mid_channels: Width of each ASPP branch.
        stereo: Whether a cost volume at four times the resolution joins in.
        with_cp: Whether the residual blocks are computed again in the
            backward pass, which saves their activations.
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        context_channels: int,
        depth_channels: int,
        aspp_mid_channels: int = 96,
        stereo: bool = False,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.reduce_conv = nn.Sequential(
            nn.Conv2d(in_channels, mid_channels, 3, padding=1),
            nn.BatchNorm2d(mid_channels),
            nn.ReLU(inplace=True),
        )
        self.context_conv = nn.Conv2d(mid_channels, context_channels, 1)
        self.bn = nn.BatchNorm1d(CAMERA_CHANNELS)
        self.depth_mlp = _CameraMLP(mid_channels)
        self.depth_se = _CameraGate(mid_channels)
        self.context_mlp = _CameraMLP(mid_channels)
        self.context_se = _CameraGate(mid_channels)
        channels, shortcut = mid_channels, None
        if stereo:
            # published spelling; the checkpoints have it
            self.cost_volumn_net = nn.Sequential(
                *(
                    layer
                    for _ in range(2)
                    for layer in (
                        nn.Conv2d(depth_channels, depth_channels, 3, stride=2, padding=1),
                        nn.BatchNorm2d(depth_channels),
                    )
                )
            )
            channels = mid_channels + depth_channels
            shortcut = nn.Conv2d(channels, mid_channels, 1)
        self.stereo = stereo
        self.depth_conv = nn.Sequential(
            BasicBlock(channels, mid_channels, downsample=shortcut),
            BasicBlock(mid_channels, mid_channels),
            BasicBlock(mid_channels, mid_channels),
            _ASPP(mid_channels, aspp_mid_channels),
            nn.Conv2d(mid_channels, depth_channels, 1),
        )

    def forward(self, x: Tensor, camera: Tensor, cost_volume: Optional[Tensor] = None) -> Tensor:
        """Logits and context, shape (B * N, D + C, H, W).

        Args:
            x: Image features, shape (B * N, in_channels, H, W).
            camera: Camera description, shape (B, N, 27).
            cost_volume: Matching distribution of the stereo net, shape
                (B * N, D, 4 H, 4 W); zeros, as published, where there is no
                earlier frame.

        Raises:
            ValueError: If batch norm of the cameras would see but one.
        """
        if self.training and len(x) == 1:
            raise ValueError(
                'DepthNet normalises camera parameters over all images of a '
                'batch and process and takes at least 2 in training, got 1; '
                'raise the batch size'
            )
        x = self.reduce_conv(x)
        camera = self.bn(camera.flatten(0, 1))
        context = self.context_se(x, self.context_mlp(camera)[..., None, None])
        depth = self.depth_se(x, self.depth_mlp(camera)[..., None, None])
        if self.stereo:
            if cost_volume is None:
                cost_volume = x.new_zeros(
                    len(x), self.cost_volumn_net[0].in_channels, 4 * x.shape[-2], 4 * x.shape[-1]
                )
            depth = torch.cat([depth, self.cost_volumn_net(cost_volume)], 1)
        depth = run(self.depth_conv, depth, with_cp=self.with_cp)
        return torch.cat([depth, self.context_conv(context)], dim=1)
