"""Lift-splat: image features to an ego voxel volume.

B batch, N cameras, D depth bins, H W feature map, C channels, X Y Z grid.
"""
from typing import Dict, Optional, Sequence, Tuple

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.registry import MODELS
from .bev_pool import bev_pool
from .depth import depth_loss, one_hot_depth
from .depth_net import DepthNet
from .view_geometry import ViewGeometry


def make_frustum(depth: Sequence[float], input_size: Tuple[int, int],
                 downsample: int) -> Tensor:
    """Pixel and depth of every frustum point.

    Pixels run from the first to the last of the image end to end, as
    published, not through the centres of the feature cells.

    Args:
        depth: ``(first, end, step)`` of the depth bins in metres.
        input_size: Height and width of the network input in pixels.
        downsample: Stride of the feature map.

    Returns:
        (u, v, d), shape (D, H, W, 3).
    """
    height, width = input_size
    depths = torch.arange(*depth, dtype=torch.float32)
    rows = torch.linspace(0, height - 1, height // downsample)
    columns = torch.linspace(0, width - 1, width // downsample)
    d, v, u = torch.meshgrid(depths, rows, columns, indexing='ij')
    return torch.stack([u, v, d], dim=-1)


def assign_voxels(points: Tensor,
                  grid: VoxelGrid,
                  truncate: bool = True) -> Tuple[Tensor, Tensor]:
    """The voxel of each point that falls into the grid.

    Args:
        points: Metric points in the grid's frame, shape (B, ..., 3).
        grid: The voxel grid.
        truncate: Whether coordinates are truncated toward zero, so that points
            up to one cell below a lower bound fall into cell 0, as published;
            otherwise they are dropped.

    Returns:
        Flat indices of the kept points and their flat voxel indices in the
        order (B, Z, Y, X), sorted by voxel; shape (K,) each.
    """
    cells = (points - points.new_tensor(grid.minimum)) / points.new_tensor(
        grid.voxel_size)
    cells = (cells if truncate else cells.floor()).long()
    upper = torch.as_tensor(grid.shape, device=points.device)
    inside = ((cells >= 0) & (cells < upper)).all(-1)
    batch = torch.arange(len(points), device=points.device)
    batch = batch.view(-1, *[1] * (points.dim() - 2))
    nx, ny, nz = grid.shape
    x, y, z = cells.unbind(-1)
    voxels = ((batch * nz + z) * ny + y) * nx + x
    kept = inside.flatten().nonzero().squeeze(1)
    voxel_of, order = voxels.flatten()[kept].sort(stable=True)
    return kept[order], voxel_of


@MODELS.register_module()
class LSSViewTransformer(BaseModule):
    """Lift-splat with a depth distribution from one 1 x 1 convolution.

    Args:
        grid_config: ``x``, ``y``, ``z`` as (lower, upper, cell size) in metres
            of the augmented-ego frame and ``depth`` as (first, end, step).
        input_size: Height and width of the network input in pixels.
        in_channels: Channels of the image features.
        out_channels: Channels C of the volume.
        downsample: Stride of the image features.
        loss_depth_weight: Weight of the LiDAR depth loss; 0 for none.
        published_truncation: See ``assign_voxels``.

    Raises:
        ValueError: If ``downsample`` does not divide ``input_size``.
    """

    def __init__(self,
                 grid_config: Dict[str, Sequence[float]],
                 input_size: Tuple[int, int],
                 in_channels: int,
                 out_channels: int,
                 downsample: int = 16,
                 loss_depth_weight: float = 0.0,
                 published_truncation: bool = True,
                 init_cfg=None) -> None:
        super().__init__(init_cfg)
        if any(size % downsample for size in input_size):
            raise ValueError(f'input_size {tuple(input_size)} takes multiples '
                             f'of downsample {downsample}')
        axes = [grid_config[axis] for axis in 'xyz']
        self.grid = VoxelGrid(
            [axis[0] for axis in axes] + [axis[1] for axis in axes],
            tuple(round((high - low) / size) for low, high, size in axes))
        self.depth_bins = tuple(grid_config['depth'])
        self.downsample = downsample
        self.loss_depth_weight = loss_depth_weight
        self.published_truncation = published_truncation
        self.register_buffer(
            'frustum',
            make_frustum(self.depth_bins, input_size, downsample),
            persistent=False)
        self.num_bins = len(self.frustum)
        self.out_channels = out_channels
        self.depth_net = self.build_depth_net(in_channels)

    def build_depth_net(self, in_channels: int) -> nn.Module:
        return nn.Conv2d(in_channels, self.num_bins + self.out_channels, 1)

    def predict_depth(self, features: Tensor,
                      geometry: ViewGeometry) -> Tensor:
        """Depth logits and context, shape (B * N, D + C, H, W)."""
        return self.depth_net(features)

    def forward(self,
                features: Tensor,
                geometry: ViewGeometry,
                known_depth: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        """Lifts image features into the augmented-ego volume.

        Args:
            features: Image features, shape (B * N, in_channels, H, W).
            geometry: Calibration of the batch.
            known_depth: Depth distributions that replace the predicted ones
                where they are not all zero, shape (B * N, D, H, W).

        Returns:
            The volume, shape (B, C, Z, Y, X), and the predicted depth
            distributions, shape (B * N, D, H, W); both float32.
        """
        if features.shape[-2:] != self.frustum.shape[1:3]:
            raise ValueError(
                f'the image features have shape {tuple(features.shape[-2:])}, '
                f'input_size / downsample is {tuple(self.frustum.shape[1:3])}')
        prediction = self.predict_depth(features, geometry)
        with torch.autocast(features.device.type, enabled=False):
            prediction = prediction.float()
            depth = prediction[:, :self.num_bins].softmax(dim=1)
            weights = depth
            if known_depth is not None:
                weights = torch.where(
                    known_depth.any(1, keepdim=True), known_depth, depth)
            volume = self.splat(weights, prediction[:, self.num_bins:],
                                geometry.lift(self.frustum))
        return volume, depth

    def splat(self, depth: Tensor, context: Tensor, points: Tensor) -> Tensor:
        """Pools weighted features at lifted points into (B, C, Z, Y, X)."""
        nx, ny, nz = self.grid.shape
        shape = (len(points), nz, ny, nx)
        point_of, voxel_of = assign_voxels(points, self.grid,
                                           self.published_truncation)
        voxels = bev_pool(depth, context, point_of, voxel_of,
                          len(points) * self.grid.num_voxels)
        return voxels.unflatten(0, shape).permute(0, 4, 1, 2, 3).contiguous()

    def loss(self, depth: Tensor, data_samples: Sequence) -> Dict[str, Tensor]:
        """``loss_depth`` of depth distributions against the LiDAR's.

        Args:
            depth: Depth distributions, shape (B * N, D, H, W).
            data_samples: Samples with ``gt_depth`` (N, H_in, W_in).

        Returns:
            Empty if ``loss_depth_weight`` is 0.

        Raises:
            ValueError: If a sample lacks ``gt_depth``.
        """
        if not self.loss_depth_weight:
            return {}
        if any('gt_depth' not in sample for sample in data_samples):
            raise ValueError('data_samples lack gt_depth; add '
                             'LoadLidarPoints and PointsToDepthMaps to the '
                             'pipeline or set loss_depth_weight=0')
        gt_depth = torch.cat([sample.gt_depth for sample in data_samples])
        loss = depth_loss(depth, self.one_hot_depth(gt_depth))
        return dict(loss_depth=self.loss_depth_weight * loss)

    def one_hot_depth(self, depth_maps: Tensor) -> Tensor:
        """Depth bins of maps (B * N, H_in, W_in); see ``one_hot_depth``."""
        return one_hot_depth(depth_maps, self.depth_bins, self.downsample)


@MODELS.register_module()
class LSSViewTransformerBEVDepth(LSSViewTransformer):
    """Lift-splat with the camera-aware ``DepthNet``.

    Args:
        depthnet_cfg: Further arguments of ``DepthNet``.
        **kwargs: Arguments of ``LSSViewTransformer``.
    """

    def __init__(self,
                 *args,
                 depthnet_cfg: Optional[dict] = None,
                 **kwargs) -> None:
        self.depthnet_cfg = dict(depthnet_cfg or {})
        super().__init__(*args, **kwargs)

    def build_depth_net(self, in_channels: int) -> nn.Module:
        return DepthNet(in_channels, in_channels, self.out_channels,
                        self.num_bins, **self.depthnet_cfg)

    def predict_depth(self, features: Tensor,
                      geometry: ViewGeometry) -> Tensor:
        return self.depth_net(features, geometry.depth_net_input())
