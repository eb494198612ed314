"""LiDAR-camera and LiDAR-only teachers of the BEVDet-Occ family."""
from typing import Optional, Sequence, Tuple

from torch import Tensor

from projects.BEVDetOcc.bevdet_occ import BEVDetOcc, ViewGeometry
from projects.BEVDetOcc.bevdet_occ.detector import build
from radocc_plugin.registry import MODELS
from .lidar import lidar_depth_maps


@MODELS.register_module()
class OccTeacher(BEVDetOcc):
    """BEVDet-Occ with a LiDAR branch in front of the BEV encoder.

    Camera modules, BEV encoder and head are the student's, under the same
    names, so a student checkpoint initialises them (``load_from``).

    Args:
        pts_voxel_encoder: Points to a dense volume of voxel features.
        pts_middle_encoder: That volume to one of the camera volume's grid.
        pts_fusion: Camera and LiDAR volume to one; None without cameras.
        depth_from_lidar: Whether image features are lifted at the depth of
            the LiDAR's returns where there are any.
        img_backbone: None for a LiDAR-only teacher, together with
            ``img_neck``, ``img_view_transformer`` and ``pts_fusion``.
        **kwargs: Arguments of ``BEVDetOcc``.

    Raises:
        ValueError: If only part of the camera branch is configured.
    """

    def __init__(self,
                 pts_voxel_encoder: dict,
                 pts_middle_encoder: dict,
                 pts_fusion: Optional[dict] = None,
                 depth_from_lidar: bool = False,
                 img_backbone: Optional[dict] = None,
                 img_neck: Optional[dict] = None,
                 img_view_transformer: Optional[dict] = None,
                 **kwargs) -> None:
        camera_branch = dict(
            img_backbone=img_backbone,
            img_neck=img_neck,
            img_view_transformer=img_view_transformer,
            pts_fusion=pts_fusion)
        missing = [name for name, part in camera_branch.items() if not part]
        if missing and len(missing) < len(camera_branch):
            raise ValueError('a fusion teacher takes all of '
                             f'{sorted(camera_branch)}, a LiDAR-only teacher '
                             f'none; {missing} are None')
        super().__init__(img_backbone, img_neck, img_view_transformer,
                         **kwargs)
        self.pts_voxel_encoder = build(pts_voxel_encoder)
        self.pts_middle_encoder = build(pts_middle_encoder)
        self.pts_fusion = build(pts_fusion)
        self.depth_from_lidar = depth_from_lidar

    def extract_volume(
            self, inputs: dict,
            data_samples: Sequence) -> Tuple[Tensor, Optional[Tensor]]:
        """The BEV encoder's input and the predicted depth distributions.

        Raises:
            ValueError: If ``inputs`` has no ``points``.
        """
        if 'points' not in inputs:
            raise ValueError('a LiDAR teacher needs points in the inputs; add '
                             'LoadLidarPoints to the pipeline (have '
                             f'{sorted(inputs)})')
        points = inputs['points']
        lidar = self.pts_middle_encoder(self.pts_voxel_encoder(points))[-1]
        if self.pts_fusion is None:
            return lidar, None
        camera, depth = self.lift_images(
            inputs['imgs'], data_samples,
            self.known_depth(points, inputs['imgs'], data_samples))
        return self.pts_fusion(camera, lidar), depth

    def known_depth(self, points: Sequence[Tensor], imgs: Tensor,
                    data_samples: Sequence) -> Optional[Tensor]:
        """One-hot depths of the returns, if the lift shall take them."""
        if not self.depth_from_lidar:
            return None
        geometry = ViewGeometry.from_data_samples(data_samples)
        maps = lidar_depth_maps(points, geometry, tuple(imgs.shape[-2:]))
        return self.img_view_transformer.one_hot_depth(maps)
