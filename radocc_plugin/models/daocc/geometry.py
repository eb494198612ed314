"""Where the images, points and labels of a batch lie around the LiDAR.

B batch, N cameras.
"""

from dataclasses import dataclass
from typing import Sequence

import torch
from torch import Tensor

from radocc_plugin.models.lift_splat.view_geometry import ViewGeometry, stack_metainfo


@dataclass(frozen=True)
class FusionGeometry:
    """Calibration and augmentations of a batch, around its LiDAR frame.

    Images, points and BEV maps meet in the *augmented* LiDAR frame, labels
    and logits lie in the augmented ego frame. The two are augmented by
    matrices of their own.

    Args:
        cam2img: Intrinsics of the raw images, shape (B, N, 3, 3).
        cam2lidar: Camera to LiDAR, with the ego motion between their times,
            shape (B, N, 4, 4).
        img_aug_mat: Raw to augmented pixel, shape (B, N, 4, 4).
        lidar2ego: Shape (B, 4, 4).
        lidar_aug_mat: LiDAR to augmented LiDAR frame, shape (B, 4, 4).
        ego_aug_mat: Ego frame to that of the head's grid, (B, 4, 4).
        mirror: 1 or -1 for x and y: what turns the head's grid into that of
            the logits, shape (B, 2).
    """

    cam2img: Tensor
    cam2lidar: Tensor
    img_aug_mat: Tensor
    lidar2ego: Tensor
    lidar_aug_mat: Tensor
    ego_aug_mat: Tensor
    mirror: Tensor

    @classmethod
    def from_data_samples(cls, data_samples: Sequence, augment_lidar: bool) -> 'FusionGeometry':
        """Geometry from the metainfo of data samples, float64, on the CPU.

        Args:
            data_samples: Samples with the metainfo of ``ViewGeometry`` and
                ``lidar2ego``.
            augment_lidar: How the logits get into the augmented ego frame.
                True augments the LiDAR frame by ``bda_mat`` too, along its
                own axes: what DAOcc is trained with. False leaves it, samples
                the BEV map on the turned grid and mirrors the logits at the
                end: under flips they are exactly those of the plain frame,
                mirrored.

        Raises:
            ValueError: If a matrix is missing, has a wrong shape, or
                ``bda_mat`` scales, which columns of fixed height cannot
                follow.
        """
        views = ViewGeometry.from_data_samples(data_samples)
        lidar2ego = torch.from_numpy(stack_metainfo(data_samples, 'lidar2ego'))
        bda_mat = views.bda_mat
        scale = torch.linalg.det(bda_mat[:, :2, :2]).abs()
        heights = bda_mat[:, 2, 2]
        if not torch.allclose(torch.stack([scale, heights]), scale.new_ones(()), atol=1e-6):
            raise ValueError(
                'DAOcc takes a bda_mat of rotations and flips, got one that '
                f'scales by {heights.tolist()}; set scale=(1.0, 1.0) of '
                'AugmentBEV'
            )
        identity = torch.eye(4).to(bda_mat).expand_as(bda_mat)
        if augment_lidar:
            lidar_aug_mat = ego_aug_mat = bda_mat
            mirror = bda_mat.new_ones(len(bda_mat), 2)
        else:
            lidar_aug_mat = identity
            mirror = bda_mat.diagonal(dim1=1, dim2=2)[:, :2].sign()
            ego_aug_mat = torch.cat([bda_mat[:, :2] * mirror[..., None], bda_mat[:, 2:]], 1)
        return cls(
            views.cam2img,
            torch.linalg.inv(lidar2ego)[:, None] @ views.cam2ego,
            views.img_aug_mat,
            lidar2ego,
            lidar_aug_mat,
            ego_aug_mat,
            mirror,
        )

    def lidar2pixel(self) -> Tensor:
        """Augmented LiDAR points to the network's images, (B, N, 3, 4).

        The third of the resulting numbers is the depth in metres, by which
        the others are to be divided.
        """
        pixel_map = self.img_aug_mat[..., [0, 1, 3]][..., [0, 1, 3], :]
        lidar2cam = torch.linalg.inv(self.cam2lidar)[..., :3, :]
        unaugmented = torch.linalg.inv(self.lidar_aug_mat)[:, None]
        return pixel_map @ self.cam2img @ lidar2cam @ unaugmented

    def ego2lidar(self) -> Tensor:
        """Points of the head's grid to augmented LiDAR, shape (B, 4, 4)."""
        return (
            self.lidar_aug_mat
            @ torch.linalg.inv(self.lidar2ego)
            @ torch.linalg.inv(self.ego_aug_mat)
        )

    def mirrored(self, logits: Tensor) -> Tensor:
        """Logits (B, X, Y, Z, C) of the head's grid in the ego frame asked
        for; the grid is symmetric in x and y."""
        if (self.mirror > 0).all():
            return logits
        return torch.stack(
            [
                volume.flip([axis for axis in range(2) if signs[axis] < 0])
                for volume, signs in zip(logits, self.mirror)
            ]
        )
