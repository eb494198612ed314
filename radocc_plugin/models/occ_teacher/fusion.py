"""Fusion of camera and LiDAR volumes, and of image features and depth."""

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from radocc_plugin.registry import MODELS


@MODELS.register_module()
class ConvFuser3D(BaseModule):
    """Concatenation and one 3 x 3 x 3 convolution.

    Args:
        camera_channels: Channels of the camera volume.
        lidar_channels: Channels of the LiDAR volume.
        out_channels: Channels of the fused volume.
        use_se: Whether channels are then gated by their global mean
            (squeeze and excitation).
    """

    def __init__(
        self,
        camera_channels: int,
        lidar_channels: int,
        out_channels: int,
        use_se: bool = False,
        init_cfg=None,
    ) -> None:
        super().__init__(init_cfg)
        self.conv = ConvModule(
            camera_channels + lidar_channels,
            out_channels,
            3,
            padding=1,
            bias=False,
            conv_cfg=dict(type='radocc_plugin.Conv3d'),
            norm_cfg=dict(type='BN3d'),
        )
        self.gate = (
            nn.Sequential(
                nn.AdaptiveAvgPool3d(1), nn.Conv3d(out_channels, out_channels, 1), nn.Sigmoid()
            )
            if use_se
            else None
        )

    def forward(self, camera: Tensor, lidar: Tensor) -> Tensor:
        """Fuses volumes (B, C, Z, Y, X) of one grid."""
        if camera.shape[2:] != lidar.shape[2:]:
            raise ValueError(
                'camera and LiDAR volumes take one grid (Z, Y, X), got '
                f'{tuple(camera.shape[2:])} and {tuple(lidar.shape[2:])}; '
                'mind the strides of pts_middle_encoder'
            )
        fused = self.conv(torch.cat([camera, lidar], dim=1))
        return fused if self.gate is None else fused * self.gate(fused)


@MODELS.register_module()
class DepthFuser(BaseModule):
    """Adds what the LiDAR says of depth to image features.

    The last convolution starts at zero, so that a camera part initialised
    from a student starts as that student.

    Args:
        num_bins: Depth bins D.
        channels: Channels C of the image features.
        hidden_channels: Channels between the two convolutions.
        dropout: Probability that a training step goes without the depth of a
            camera, so that the depth net does not unlearn to see; FusionOcc
            drops half of the depth.
    """

    def __init__(
        self,
        num_bins: int,
        channels: int,
        hidden_channels: int = 64,
        dropout: float = 0.0,
        init_cfg=None,
    ) -> None:
        super().__init__(init_cfg)
        if not 0 <= dropout < 1:
            raise ValueError(f'DepthFuser.dropout takes a probability below 1, got {dropout}')
        self.convs = nn.Sequential(
            nn.Conv2d(num_bins, hidden_channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden_channels, channels, 3, padding=1, bias=False),
        )
        nn.init.zeros_(self.convs[-1].weight)
        self.dropout = dropout

    def forward(self, features: Tensor, depth: Tensor) -> Tensor:
        """Features (B * N, C, H, W) with one-hot depths (B * N, D, H, W)."""
        if self.training and self.dropout:
            kept = torch.rand(len(depth), device=depth.device) >= self.dropout
            depth = depth * kept.view(-1, 1, 1, 1)
        return features + self.convs(depth)
