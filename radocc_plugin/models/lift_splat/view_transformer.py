"""Lift-splat: image features to an ego voxel volume.

B batch, N cameras, D depth bins, H W feature map, C channels, X Y Z grid.
"""

from typing import Dict, Optional, Sequence, Tuple

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.models.lift_splat.bev_pool import bev_pool
from radocc_plugin.models.lift_splat.cost_volume import cost_volume, sampling_positions
from radocc_plugin.models.lift_splat.depth import DepthBins, depth_loss, one_hot_depth
from radocc_plugin.models.lift_splat.depth_net import DepthNet
from radocc_plugin.models.lift_splat.lift import plan_lift
from radocc_plugin.models.lift_splat.view_geometry import ViewGeometry
from radocc_plugin.registry import MODELS


@MODELS.register_module()
class LSSViewTransformer(BaseModule):
    """Lift-splat with a depth distribution from one 1 x 1 convolution.

    Takes images of any size; the frustum spans the feature map.

    Args:
        grid_config: ``x``, ``y``, ``z`` as (lower, upper, cell size) in metres
            of the augmented-ego frame and ``depth`` as (first, end, step).
        in_channels: Channels of the image features.
        out_channels: Channels C of the volume.
        downsample: Stride of the image features.
        sid: Whether depth bins grow with depth, see ``DepthBins``. Weights
            do not tell; a model takes the bins that it was trained with.
        collapse_z: Whether the volume is a bird's-eye-view map (B, C, Y, X);
            takes a grid of one cell in z.
        loss_depth_weight: Weight of the LiDAR depth loss; 0 for none.
        published_truncation: See ``assign_voxels``.

    Raises:
        ValueError: If ``collapse_z`` does not fit the grid.
    """

    stereo = False  # whether depth is compared with the frame before

    def __init__(
        self,
        grid_config: Dict[str, Sequence[float]],
        in_channels: int,
        out_channels: int,
        downsample: int = 16,
        sid: bool = False,
        collapse_z: bool = False,
        loss_depth_weight: float = 0.0,
        published_truncation: bool = True,
        init_cfg=None,
    ) -> None:
        super().__init__(init_cfg)
        axes = [grid_config[axis] for axis in 'xyz']
        self.grid = VoxelGrid(
            [axis[0] for axis in axes] + [axis[1] for axis in axes],
            tuple(round((high - low) / size) for low, high, size in axes),
        )
        if collapse_z and self.grid.shape[2] != 1:
            raise ValueError(
                f'collapse_z takes a grid_config with one cell in z, got {self.grid.shape[2]}'
            )
        self.depth_bins = DepthBins(*grid_config['depth'], sid=sid)
        self.num_bins = self.depth_bins.count
        self.downsample = downsample
        self.collapse_z = collapse_z
        self.loss_depth_weight = loss_depth_weight
        self.published_truncation = published_truncation
        self.out_channels = out_channels
        self.depth_net = self.build_depth_net(in_channels)
        self.register_load_state_dict_post_hook(_tell_bins)

    def build_depth_net(self, in_channels: int) -> nn.Module:
        return nn.Conv2d(in_channels, self.num_bins + self.out_channels, 1)

    def predict_depth(
        self, features: Tensor, geometry: ViewGeometry, matching: Optional[Tensor] = None
    ) -> Tensor:
        """Depth logits and context, shape (B * N, D + C, H, W)."""
        return self.depth_net(features)

    def forward(
        self,
        features: Tensor,
        geometry: ViewGeometry,
        known_depth: Optional[Tensor] = None,
        matching: Optional[Tensor] = None,
    ) -> Tuple[Tensor, Tensor]:
        """Lifts image features into the augmented-ego volume.

        Args:
            features: Image features, shape (B * N, in_channels, H, W).
            geometry: Calibration of the batch.
            known_depth: Depth distributions that replace the predicted ones
                where they are not all zero, shape (B * N, D, H, W).
            matching: ``match`` of a stereo view transformer.

        Returns:
            The volume, shape (B, C, Z, Y, X), or (B, C, Y, X) collapsed, and
            the predicted depth distributions, shape (B * N, D, H, W); both
            float32.
        """
        prediction = self.predict_depth(features, geometry, matching)
        with torch.autocast(features.device.type, enabled=False):
            prediction = prediction.float()
            depth = prediction[:, : self.num_bins].softmax(dim=1)
            weights = depth
            if known_depth is not None:
                weights = torch.where(known_depth.any(1, keepdim=True), known_depth, depth)
            volume = self.splat(weights, prediction[:, self.num_bins :], geometry)
        return volume, depth

    def splat(self, depth: Tensor, context: Tensor, geometry: ViewGeometry) -> Tensor:
        """Pools features (B * N, C, H, W) weighted by depth into a volume."""
        # int: where a model is traced, sizes are tensors
        size = tuple(int(n) for n in depth.shape[-2:])
        plan = plan_lift(
            geometry,
            self.depth_bins,
            size,
            self.downsample,
            self.grid,
            self.published_truncation,
            depth.device,
        )
        nx, ny, nz = self.grid.shape
        voxels = bev_pool(depth, context, *plan)
        volume = voxels.unflatten(0, (-1, nz, ny, nx))
        volume = volume.permute(0, 4, 1, 2, 3).contiguous()
        return volume.squeeze(2) if self.collapse_z else volume

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
            raise ValueError(
                'data_samples lack gt_depth; add '
                'LoadLidarPoints and PointsToDepthMaps to the '
                'pipeline or set loss_depth_weight=0'
            )
        gt_depth = torch.cat([sample.gt_depth for sample in data_samples])
        targets = self.one_hot_depth(gt_depth, tuple(depth.shape[-2:]))
        loss = depth_loss(depth, targets)
        return dict(loss_depth=self.loss_depth_weight * loss)

    def one_hot_depth(self, depth_maps: Tensor, size: Optional[Tuple[int, int]] = None) -> Tensor:
        """Depth bins of maps (B * N, H_in, W_in); see ``one_hot_depth``."""
        return one_hot_depth(depth_maps, self.depth_bins, self.downsample, size)


def _tell_bins(transformer: LSSViewTransformer, keys) -> None:
    """Says in the log what no state dict tells."""
    bins = transformer.depth_bins
    depths = bins.depths()
    print_log(
        f'Weights were loaded for {bins.count} depth bins that '
        f'{"grow with depth" if bins.sid else "are equally wide"} (sid='
        f'{bins.sid}), {depths[0]:.2f} to {depths[-1]:.2f} m; they do not '
        'tell whether they were trained so',
        logger='current',
    )


@MODELS.register_module()
class LSSViewTransformerBEVDepth(LSSViewTransformer):
    """Lift-splat with the camera-aware ``DepthNet``.

    Args:
        depthnet_cfg: Further arguments of ``DepthNet``.
        **kwargs: Arguments of ``LSSViewTransformer``.
    """

    def __init__(self, *args, depthnet_cfg: Optional[dict] = None, **kwargs) -> None:
        self.depthnet_cfg = dict(depthnet_cfg or {})
        super().__init__(*args, **kwargs)

    def build_depth_net(self, in_channels: int) -> nn.Module:
        return DepthNet(
            in_channels,
            in_channels,
            self.out_channels,
            self.num_bins,
            stereo=self.stereo,
            **self.depthnet_cfg,
        )

    def predict_depth(
        self, features: Tensor, geometry: ViewGeometry, matching: Optional[Tensor] = None
    ) -> Tensor:
        camera = geometry.depth_net_input().to(features.device)
        return self.depth_net(features, camera, matching)


@MODELS.register_module()
class LSSViewTransformerBEVStereo(LSSViewTransformerBEVDepth):
    """Lift-splat whose ``DepthNet`` also sees a cost volume over time.

    Args:
        matching_bias: See ``cost_volume``.
        **kwargs: Arguments of ``LSSViewTransformerBEVDepth``.
    """

    stereo = True

    def __init__(self, *args, matching_bias: float = 5.0, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.matching_bias = matching_bias

    def match(
        self,
        current: Tensor,
        previous: Tensor,
        geometry: ViewGeometry,
        previous_geometry: ViewGeometry,
    ) -> Tensor:
        """How stereo features of a frame match those of the frame before.

        Args:
            current: Stereo features, shape (B * N, c, 4 H, 4 W).
            previous: Those of the frame before, same shape.
            geometry: Calibration of the frame.
            previous_geometry: Calibration of the frame before.

        Returns:
            Distribution over depth, shape (B * N, D, 4 H, 4 W), no gradient.
        """
        positions = sampling_positions(
            geometry, previous_geometry, self.depth_bins, current.shape[-2:], current.device
        )
        return cost_volume(current, previous, positions, self.matching_bias)
