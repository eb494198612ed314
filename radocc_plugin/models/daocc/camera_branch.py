"""The camera branch: image levels to one map, sampled at voxel centres.

B batch, N cameras, P voxels, C channels, H W feature map, X Y Z grid.
"""

from typing import Sequence, Tuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.models.daocc.geometry import FusionGeometry
from radocc_plugin.registry import MODELS

MIN_DEPTH = 1e-5  # metres
NORM_CFG = dict(type='BN2d')


@MODELS.register_module()
class GeneralizedLSSFPN(BaseModule):
    """Merges image levels from the coarsest to the finest.

    Args:
        in_channels: Channels of the levels, finest first.
        out_channels: Channels of the output.

    BEVFusion (ICRA 2023), as in AlphaPlusTT/DAOcc 6846432b.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, init_cfg=None) -> None:
        super().__init__(init_cfg)
        coarser = [*[out_channels] * (len(in_channels) - 2), in_channels[-1]]
        self.lateral_convs = nn.ModuleList(
            ConvModule(fine + coarse, out_channels, 1, norm_cfg=NORM_CFG)
            for fine, coarse in zip(in_channels, coarser)
        )
        self.fpn_convs = nn.ModuleList(
            ConvModule(out_channels, out_channels, 3, padding=1, norm_cfg=NORM_CFG) for _ in coarser
        )

    def forward(self, levels: Sequence[Tensor]) -> Tuple[Tensor, ...]:
        """Levels (B, out_channels, H_i, W_i) of all but the coarsest input.

        Raises:
            ValueError: If the number of levels is not that of
                ``in_channels``.
        """
        if len(levels) != len(self.lateral_convs) + 1:
            raise ValueError(
                f'in_channels names {len(self.lateral_convs) + 1} levels, the '
                f'backbone gives {len(levels)}; check its out_indices'
            )
        merged = levels[-1]
        outputs = []
        for level, lateral, conv in reversed(list(zip(levels, self.lateral_convs, self.fpn_convs))):
            merged = F.interpolate(merged, level.shape[-2:], mode='bilinear', align_corners=False)
            merged = conv(lateral(torch.cat([level, merged], 1)))
            outputs.insert(0, merged)
        return tuple(outputs)


@MODELS.register_module()
class BEVTransform(BaseModule):
    """Image features at the centres of voxels in the LiDAR frame; no depth.

    Args:
        point_cloud_range: ``(x0, y0, z0, x1, y1, z1)`` in metres of the
            augmented LiDAR frame.
        grid_shape: Voxels (X, Y, Z).
        in_channels: Channels of the image features.
        out_channels: Channels of a voxel.
        version: 2: a voxel takes its feature from the first camera that sees
            it, of maps whose corners lie at the image's (align_corners).
            1: the mean over the cameras that see it, of maps whose *cells*
            fill the image. Weights do not tell which they were trained with.

    Raises:
        ValueError: If ``version`` is neither.

    AlphaPlusTT/DAOcc 6846432b, ``BEVTransformV2`` and ``BEVTransform``.
    """

    def __init__(
        self,
        point_cloud_range: Sequence[float],
        grid_shape: Sequence[int],
        in_channels: int,
        out_channels: int,
        version: int = 2,
    ) -> None:
        super().__init__()
        if version not in (1, 2):
            raise ValueError(f'BEVTransform.version takes 1 or 2, got {version!r}')
        self.grid = VoxelGrid(tuple(point_cloud_range), tuple(grid_shape))
        self.version = version
        self.transfer_conv = nn.Conv2d(in_channels, out_channels, 1)
        # listed (z, y, x); in the published files, hence persistent
        centres = self.grid.centres(dtype=torch.float64).permute(2, 1, 0, 3)
        self.register_buffer('ref_3d', centres.reshape(-1, 3).float())

    def forward(
        self, features: Tensor, geometry: FusionGeometry, image_size: Tuple[int, int]
    ) -> Tensor:
        """The camera's BEV map.

        Args:
            features: Shape (B, N, in_channels, H, W).
            geometry: Of the batch.
            image_size: Height and width of the network's images in pixels.

        Returns:
            Shape (B, Z * out_channels, X, Y), float32, channel
            ``z * out_channels + c``; zero where no camera sees.
        """
        batch = len(features)
        x, y, z = self.grid.shape
        with torch.autocast(features.device.type, enabled=False):
            features = self.transfer_conv(features.float().flatten(0, 1))
            positions, visible = project(self.ref_3d, geometry.lidar2pixel(), image_size)
            chosen = first_camera(visible) if self.version == 2 else visible
            volume = sample_views(
                features.unflatten(0, (batch, -1)),
                positions,
                chosen,
                align_corners=self.version == 2,
            )
            if self.version == 1:
                volume = volume / chosen.sum(1).clamp(min=1)[..., None]
        return volume.view(batch, z, y, x, -1).permute(0, 1, 4, 3, 2).reshape(batch, -1, x, y)


def project(
    points: Tensor, lidar2pixel: Tensor, image_size: Tuple[int, int]
) -> Tuple[Tensor, Tensor]:
    """Where the cameras see points.

    Args:
        points: Shape (P, 3), metres, augmented LiDAR frame.
        lidar2pixel: See ``FusionGeometry.lidar2pixel``, (B, N, 3, 4).
        image_size: Height and width of the network's images in pixels.

    Returns:
        Positions (u, v) in the images, 0 to 1 from edge to edge, shape (B,
        N, P, 2), and whether a point is inside of it, (B, N, P).
    """
    matrix = lidar2pixel.to(points.device, torch.float64)
    projected = points.double() @ matrix[..., :3].transpose(-1, -2)
    projected = (projected + matrix[..., None, :, 3]).to(points.dtype)
    depth = projected[..., 2]
    positions = projected[..., :2] / depth.clamp(min=MIN_DEPTH)[..., None]
    positions = positions / positions.new_tensor(image_size).flip(0)
    inside = ((positions > 0) & (positions < 1)).all(-1)
    return positions, inside & (depth > MIN_DEPTH)


def first_camera(visible: Tensor) -> Tensor:
    """Of the cameras (B, N, P) that see a point the first only."""
    return visible & (visible.cumsum(1) == 1)


def sample_views(
    features: Tensor, positions: Tensor, chosen: Tensor, align_corners: bool
) -> Tensor:
    """Sum over the chosen cameras of their features at the points.

    Args:
        features: Shape (B, N, C, H, W).
        positions: See ``project``, (B, N, P, 2).
        chosen: Cameras that count for a point, bool, (B, N, P).
        align_corners: Whether 0 and 1 are the centres of the outermost
            cells, not the edges of the map.

    Returns:
        Shape (B, P, C); zero where no camera counts.
    """
    batch, _, points = chosen.shape
    volume = features.new_zeros(batch * points, features.shape[2])
    for sample in range(batch):
        for view, position, mask in zip(features[sample], positions[sample], chosen[sample]):
            index = mask.nonzero()[:, 0]
            places = position[index] * 2 - 1
            rows = F.grid_sample(
                view[None],
                places[None, :, None],
                mode='bilinear',
                padding_mode='zeros',
                align_corners=align_corners,
            )[0, :, :, 0].T
            # a camera meets a row once
            volume.index_add_(0, index + sample * points, rows)
    return volume.view(batch, points, -1)
