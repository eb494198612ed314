"""The occupancy head: LiDAR BEV map to ego columns, and its loss.

B batch, C channels, X Y Z grid.
"""

from typing import Dict, Optional, Sequence, Union

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from radocc_plugin.geometry import VoxelGrid, transform_points
from radocc_plugin.label_space import UNLABELLED
from radocc_plugin.losses.common import connected_zero
from radocc_plugin.models.bevdet import BEVOCCHead2D
from radocc_plugin.models.daocc.geometry import FusionGeometry
from radocc_plugin.registry import MODELS
from radocc_plugin.structures import stack_mask


class CrossCoordinateSample(BaseModule):
    """Resamples a LiDAR BEV map on the ground of an ego grid.

    Cells of a column, whatever their height, read the map below or above the
    ego's z = 0.

    Args:
        point_cloud_range: ``(x0, y0, z0, x1, y1, z1)`` of the ego grid.
        grid_shape: Cells (X, Y) of the ego grid.
        lidar_range: ``(x0, y0, x1, y1)`` of the map.
        in_channels: Channels of the map.
        out_channels: Channels of the result.
    """

    def __init__(
        self,
        point_cloud_range: Sequence[float],
        grid_shape: Sequence[int],
        lidar_range: Sequence[float],
        in_channels: int,
        out_channels: int,
    ) -> None:
        super().__init__()
        low, high = point_cloud_range[:2], point_cloud_range[3:5]
        plane = VoxelGrid((*low, -1, *high, 1), (*grid_shape, 1))
        self.lidar_range = tuple(lidar_range)
        self.grid_shape = tuple(grid_shape)
        self.transfer_conv = nn.Conv2d(in_channels, out_channels, 1)
        # listed (y, x); in the published files, hence persistent
        centres = plane.centres(dtype=torch.float64).permute(2, 1, 0, 3)
        self.register_buffer('ref_points', centres.reshape(-1, 3).float())

    def positions(self, geometry: FusionGeometry) -> Tensor:
        """Where the cells lie in the map, -1 to 1 along the LiDAR's x and y,
        shape (B, X * Y, 2); x of the ego runs fastest."""
        ego2lidar = geometry.ego2lidar().to(self.ref_points.device)
        points = transform_points(
            ego2lidar, self.ref_points.double().expand(len(ego2lidar), -1, -1)
        )[..., :2]
        low, high = points.new_tensor(self.lidar_range).view(2, 2)
        return ((points - low) / (high - low) * 2 - 1).to(self.ref_points.dtype)

    def forward(self, bev: Tensor, geometry: FusionGeometry) -> Tensor:
        """The ego grid's map (B, out_channels, Y, X) of the LiDAR's (B,
        in_channels, Y, X); zero outside of the latter."""
        nx, ny = self.grid_shape
        with torch.autocast(bev.device.type, enabled=False):
            return F.grid_sample(
                self.transfer_conv(bev.float()),
                self.positions(geometry).view(-1, ny, nx, 2),
                mode='bilinear',
                padding_mode='zeros',
                align_corners=False,
            )


@MODELS.register_module()
class DAOccHead(BEVOCCHead2D):
    """FlashOcc's channel-to-height head behind a ``CrossCoordinateSample``.

    Args:
        coordinate_transform: Arguments of ``CrossCoordinateSample`` without
            ``out_channels``.
        in_dim: Channels after it.
        keep_free: Share of the free voxels that counts in the loss without
            mask, drawn anew in every step (published: 0.2).
        **kwargs: Of ``BEVOCCHead2D``, but for class weights.

    Raises:
        ValueError: If ``keep_free`` is not in (0, 1], or below 1 with
            ``use_mask``.

    AlphaPlusTT/DAOcc 6846432b; the model without mask is its ``_wo_mask``.
    """

    def __init__(
        self,
        coordinate_transform: dict,
        in_dim: int = 128,
        use_mask: Union[bool, str] = True,
        keep_free: float = 1.0,
        **kwargs,
    ) -> None:
        super().__init__(in_dim=in_dim, use_mask=use_mask, **kwargs)
        if not 0 < keep_free <= 1 or (use_mask and keep_free < 1):
            raise ValueError(
                'DAOccHead.keep_free takes more than 0 up to 1, '
                'and 1 with use_mask; got '
                f'{keep_free} and use_mask={use_mask}'
            )
        self.coordinate_transform = CrossCoordinateSample(
            **coordinate_transform, out_channels=in_dim
        )
        self.keep_free = keep_free

    @property
    def free_weight(self) -> Optional[Sequence[float]]:
        """What thinning free voxels amounts to, a weight for each class."""
        if self.keep_free == 1:
            return None
        return [1.0] * (self.num_classes - 1) + [self.keep_free]

    def forward(self, bev: Tensor, geometry: FusionGeometry) -> Tensor:
        """Logits (B, X, Y, Dz, C) in the augmented ego frame of a LiDAR BEV
        map (B, C, X, Y)."""
        ego_bev = self.coordinate_transform(bev.transpose(2, 3), geometry)
        return geometry.mirrored(super().forward(ego_bev))

    def loss(self, logits: Tensor, data_samples: Sequence) -> Dict[str, Tensor]:
        """``loss_occ`` against ``gt_occ`` of the data samples."""
        labels = torch.stack([s.gt_occ.semantics for s in data_samples])
        if self.use_mask:
            counted = stack_mask(data_samples, self.use_mask)
        else:
            counted = thin_free(labels, self.num_classes - 1, self.keep_free)
        return dict(loss_occ=counted_cross_entropy(logits, labels, counted))


def thin_free(labels: Tensor, free: int, share: float) -> Tensor:
    """Voxels that count when a random share of the free ones does.

    Args:
        labels: Classes, shape (...).
        free: The free class.
        share: Probability of each free voxel to count.

    Returns:
        Bool, shape (...).
    """
    drawn = torch.rand(labels.numel(), device=labels.device) <= share
    return (labels != free) | drawn.view(labels.shape)


def counted_cross_entropy(logits: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
    """Sum of the cross entropy over voxels, divided by their number.

    Unlabelled voxels (255) add nothing, but are in the divisor, as published.

    Args:
        logits: Shape (B, X, Y, Z, C).
        labels: Classes or 255, shape (B, X, Y, Z).
        counted: Bool, shape (B, X, Y, Z).

    Returns:
        Scalar, float32; a connected zero where nothing counts.
    """
    rows = logits[counted].float()
    if not len(rows):
        return connected_zero(logits)
    total = F.cross_entropy(rows, labels[counted].long(), ignore_index=UNLABELLED, reduction='sum')
    return total / len(rows)
