"""LiDAR-camera and LiDAR-only teachers of the BEVDet-Occ family."""

from typing import Optional, Sequence, Tuple

import torch
from torch import Tensor

from radocc_plugin.checkpoints import load_weights
from radocc_plugin.models.bevdet import BEVDetOcc
from radocc_plugin.models.bevdet.detector import build
from radocc_plugin.registry import MODELS

LIDAR = 'pts_'  # names of what a student does not have


@MODELS.register_module()
class OccTeacher(BEVDetOcc):
    """BEVDet-Occ with a LiDAR branch in front of the BEV encoder.

    Camera modules, BEV encoder and head are the student's, under the same
    names, so a student checkpoint initialises them.

    Args:
        pts_voxel_encoder: Points to voxel features.
        pts_middle_encoder: Voxel features to levels of dense volumes, of
            which the last has the grid of the camera volume.
        pts_fusion: Camera and LiDAR volume to one; None without cameras.
        depth_from_lidar: Whether image features are lifted at the depth of
            the LiDAR's returns where there are any (as EFFOcc).
        pts_depth_fusion: Puts the depth of the returns into the image
            features that the depth net reads, see ``DepthFuser``.
        camera_checkpoint: Checkpoint of a student with which ``init_weights``
            fills everything but the LiDAR branch (a teacher's fills that,
            too); every key must match.
        img_backbone: None for a LiDAR-only teacher, together with
            ``img_neck``, ``img_view_transformer`` and ``pts_fusion``.
        **kwargs: Arguments of ``BEVDetOcc``.

    Raises:
        ValueError: If only part of the camera branch is configured, or a
            LiDAR-only teacher is to have a camera's depth or checkpoint.

    RadOcc (AAAI 2024, arXiv 2312.11829), its teachers; FusionOcc (MM 2024).
    """

    def __init__(
        self,
        pts_voxel_encoder: dict,
        pts_middle_encoder: dict,
        pts_fusion: Optional[dict] = None,
        depth_from_lidar: bool = False,
        pts_depth_fusion: Optional[dict] = None,
        camera_checkpoint: Optional[str] = None,
        img_backbone: Optional[dict] = None,
        img_neck: Optional[dict] = None,
        img_view_transformer: Optional[dict] = None,
        **kwargs,
    ) -> None:
        camera_branch = dict(
            img_backbone=img_backbone,
            img_neck=img_neck,
            img_view_transformer=img_view_transformer,
            pts_fusion=pts_fusion,
        )
        missing = [name for name, part in camera_branch.items() if not part]
        if missing and len(missing) < len(camera_branch):
            raise ValueError(
                'a fusion teacher takes all of '
                f'{sorted(camera_branch)}, a LiDAR-only teacher '
                f'none; {missing} are None'
            )
        if missing and (depth_from_lidar or pts_depth_fusion or camera_checkpoint):
            raise ValueError(
                'depth_from_lidar, pts_depth_fusion and camera_checkpoint '
                'take a camera branch; this teacher is LiDAR-only'
            )
        if camera_checkpoint:
            # overwritten anyway; spares a download
            img_backbone = dict(img_backbone, init_cfg=None)
        super().__init__(img_backbone, img_neck, img_view_transformer, **kwargs)
        self.pts_voxel_encoder = build(pts_voxel_encoder)
        self.pts_middle_encoder = build(pts_middle_encoder)
        self.pts_fusion = build(pts_fusion)
        self.pts_depth_fusion = build(pts_depth_fusion)
        if pts_depth_fusion:
            self.img_view_transformer.register_forward_pre_hook(self.fuse_depth)
        self.depth_from_lidar = depth_from_lidar
        self.camera_checkpoint = camera_checkpoint

    def init_weights(self) -> None:
        """Initialises all modules, then from ``camera_checkpoint``.

        Raises:
            ValueError: If a key of the camera part is missing in the file or
                differs in shape, or the file has keys of nothing here.
        """
        super().init_weights()
        if self.camera_checkpoint:
            load_weights(self, self.camera_checkpoint, optional=[LIDAR])

    def extract_volume(
        self, inputs: dict, data_samples: Sequence
    ) -> Tuple[Tensor, Optional[Tensor]]:
        """The BEV encoder's input and the predicted depth distributions.

        Raises:
            ValueError: If ``inputs`` has no ``points``.
        """
        if 'points' not in inputs:
            raise ValueError(
                'a LiDAR teacher needs points in the inputs; add '
                'LoadLidarPoints to the pipeline (have '
                f'{sorted(inputs)})'
            )
        voxels = self.pts_voxel_encoder(inputs['points'])
        lidar = self.pts_middle_encoder(voxels)[-1]
        if self.pts_fusion is None:
            return lidar, None
        camera, depth = super().extract_volume(inputs, data_samples)
        return self.pts_fusion(camera, lidar), depth

    def lift_images(
        self, imgs: Tensor, data_samples: Sequence, *args, **kwargs
    ) -> Tuple[Tensor, Tensor]:
        """The student's, told the depth of the LiDAR's returns if set."""
        if self.depth_from_lidar or self.pts_depth_fusion is not None:
            stride = self.img_view_transformer.downsample
            kwargs['known_depth'] = self.known_depth(
                data_samples, tuple(n // stride for n in imgs.shape[-2:])
            )
        return super().lift_images(imgs, data_samples, *args, **kwargs)

    def fuse_depth(self, view_transformer, args: tuple) -> tuple:
        """Arguments of the view transformer with the depth put to use.

        Earlier frames have no known depth and pass as they are.
        """
        features, geometry, known_depth, *others = args
        if known_depth is not None:
            features = self.pts_depth_fusion(features, known_depth)
        if not self.depth_from_lidar:
            known_depth = None
        return (features, geometry, known_depth, *others)

    def known_depth(self, data_samples: Sequence, size: Optional[Tuple[int, int]] = None) -> Tensor:
        """One-hot depths of the LiDAR's returns, (B * N, D, H, W).

        Args:
            data_samples: Samples with ``gt_depth``.
            size: Cells of the features, see ``one_hot_depth``.

        Raises:
            ValueError: If a sample has no depth maps.
        """
        if any('gt_depth' not in sample for sample in data_samples):
            raise ValueError(
                'the LiDAR depth of a teacher takes gt_depth in the data '
                'samples; add PointsToDepthMaps to the pipeline, in testing '
                'too'
            )
        return self.img_view_transformer.one_hot_depth(
            torch.cat([sample.gt_depth for sample in data_samples]), size
        )
