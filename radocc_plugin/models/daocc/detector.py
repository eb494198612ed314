"""DAOcc: a LiDAR-camera occupancy network."""

from typing import Dict, List, Optional, Sequence, Union

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor, nn

from radocc_plugin.geometry import transform_points
from radocc_plugin.models.bevdet.detector import build
from radocc_plugin.models.daocc.detection import build_detection_head, detection_losses
from radocc_plugin.models.daocc.geometry import FusionGeometry
from radocc_plugin.registry import MODELS
from radocc_plugin.structures import OccData

# Constants of the configuration that published files hold too.
CONSTANTS = ('ref_3d', 'ref_points')
# Under another name than the published one: its maps have rows along y here,
# so that the kernels of its files would be turned.
DETECTION_HEAD, OUR_DETECTION_HEAD = 'heads.object.', 'detection_head.'


@MODELS.register_module()
class DAOcc(BaseModel):
    """Camera features at voxel centres beside LiDAR voxels, decoded in BEV.

    The occupancy path of DAOcc, under the names of its published files,
    which load as they are: their detection head is ignored and listed.
    BEV maps are (B, C, X, Y) in the LiDAR frame, logits (B, X, Y, Z, C) in the
    augmented ego frame.

    Args:
        encoders: ``dict(camera=dict(backbone, neck, vtransform),
            lidar=dict(voxelize, backbone))``.
        fuser: Arguments of ``conv_fuser``.
        decoder: ``dict(backbone, neck)``.
        heads: ``dict(occ)``.
        data_preprocessor: See ``radocc_plugin.OccDataPreprocessor``.
        detection_head: mmdet3d's ``CenterHead``, which assists the training and
            is not asked for predictions; None for none.
        detection_weight: Weight of its losses.

    Yang et al., DAOcc, TCSVT 2025, arXiv 2409.19972 (AlphaPlusTT/DAOcc
    6846432b).
    """

    def __init__(
        self,
        encoders: dict,
        fuser: dict,
        decoder: dict,
        heads: dict,
        data_preprocessor: Optional[dict] = None,
        init_cfg: Optional[dict] = None,
        detection_head: Optional[dict] = None,
        detection_weight: float = 0.01,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.encoders = nn.ModuleDict({name: build_all(parts) for name, parts in encoders.items()})
        self.fuser = conv_fuser(**fuser)
        self.decoder = build_all(decoder)
        self.heads = build_all(heads)
        self.detection_head = (
            None if detection_head is None else build_detection_head(detection_head)
        )
        self.detection_weight = detection_weight
        self._register_load_state_dict_pre_hook(_on_load, with_module=True)

    @property
    def occ_tap(self) -> dict:
        """Where the distiller picks up the logits, see ``OccTap``."""
        return dict(
            module='heads.occ', layout='b x y z c', class_weight=self.heads['occ'].free_weight
        )

    def forward(
        self, inputs: dict, data_samples: Sequence, mode: str = 'tensor'
    ) -> Union[Tensor, Dict[str, Tensor], List]:
        """Losses, predictions or logits of a batch.

        While it trains, ``bda_mat`` augments the LiDAR frame as well; else
        only the logits follow it, see ``FusionGeometry``.

        Args:
            inputs: ``imgs`` (B, N, 3, H, W), normalised, cameras in the
                order in which they win a voxel, and ``lidar_points``, B
                clouds (P, 5) in the LiDAR frame.
            data_samples: B samples with the calibration in their metainfo
                (see ``FusionGeometry``); in mode ``loss`` with ``gt_occ``,
                and ``gt_instances_3d`` for a detection head.
            mode: ``loss`` for the losses, ``predict`` for the samples with
                ``pred_occ``, ``tensor`` for logits (B, X, Y, Z, C).

        Raises:
            ValueError: If ``mode`` is none of them, or ``inputs`` has no
                ``lidar_points``.
        """
        if mode not in ('loss', 'predict', 'tensor'):
            raise ValueError(f"mode takes 'loss', 'predict' or 'tensor', got {mode!r}")
        if 'lidar_points' not in inputs:
            raise ValueError(
                'DAOcc takes lidar_points in the inputs: LoadLidarSweeps in '
                'its own pipeline, TeacherPipeline in that of a student '
                f'(have {sorted(inputs)})'
            )
        geometry = FusionGeometry.from_data_samples(data_samples, augment_lidar=self.training)
        points = augment_points(inputs['lidar_points'], geometry.lidar_aug_mat)
        bev = self.bev_map(inputs['imgs'], points, geometry)
        logits = self.heads['occ'](bev, geometry)
        if mode == 'tensor':
            return logits
        if mode == 'predict':
            return self.add_predictions(logits, data_samples)
        losses = self.heads['occ'].loss(logits, data_samples)
        if self.detection_head is not None:
            detection = detection_losses(
                self.detection_head, bev, data_samples, geometry.lidar_aug_mat
            )
            losses.update({k: self.detection_weight * v for k, v in detection.items()})
        return losses

    def bev_map(self, imgs: Tensor, points: Sequence[Tensor], geometry: FusionGeometry) -> Tensor:
        """The decoded map (B, C, X, Y) of images and augmented points."""
        fused = self.fuser(torch.cat([self.camera_map(imgs, geometry), self.lidar_map(points)], 1))
        return self.decoder['neck'](self.decoder['backbone'](fused))

    def camera_map(self, imgs: Tensor, geometry: FusionGeometry) -> Tensor:
        """The cameras' part of the fused map."""
        branch = self.encoders['camera']
        levels = branch['backbone'](imgs.flatten(0, 1))
        features = branch['neck'](levels)[0].unflatten(0, imgs.shape[:2])
        return branch['vtransform'](features, geometry, imgs.shape[-2:])

    def lidar_map(self, points: Sequence[Tensor]) -> Tensor:
        """The LiDAR's part, of points in the augmented LiDAR frame."""
        branch = self.encoders['lidar']
        return branch['backbone'](branch['voxelize'](points))

    def add_predictions(self, logits: Tensor, data_samples: Sequence) -> List:
        """The samples with ``pred_occ.semantics`` (X, Y, Z), uint8."""
        for sample, labels in zip(data_samples, logits.argmax(dim=-1)):
            sample.pred_occ = OccData(semantics=labels.to(torch.uint8))
        return list(data_samples)


def build_all(configs: dict) -> nn.ModuleDict:
    """Modules by the names of their configs."""
    return nn.ModuleDict({name: build(config) for name, config in configs.items()})


def conv_fuser(in_channels: Sequence[int], out_channels: int) -> nn.Module:
    """Concatenated maps, one after the other, through one convolution.

    Args:
        in_channels: Channels of the maps.
        out_channels: Channels of the result.
    """
    return nn.Sequential(
        nn.Conv2d(sum(in_channels), out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def augment_points(points: Sequence[Tensor], lidar_aug_mat: Tensor) -> List[Tensor]:
    """Clouds (P, 5) of the LiDAR frame in the augmented one."""
    identity = torch.eye(4).to(lidar_aug_mat)
    return [
        cloud
        if torch.equal(matrix, identity)
        else torch.cat([transform_points(matrix.to(cloud.device), cloud[:, :3]), cloud[:, 3:]], 1)
        for cloud, matrix in zip(points, lidar_aug_mat)
    ]


def _on_load(module, state_dict: dict, prefix: str, *args) -> None:
    """Leaves out the detection head and checks constants.

    Raises:
        ValueError: If a constant of the file is another than ours.
    """
    names = (DETECTION_HEAD,) if module.detection_head else (DETECTION_HEAD, OUR_DETECTION_HEAD)
    ignored = [k for k in state_dict if k.startswith(tuple(prefix + name for name in names))]
    for key in ignored:
        del state_dict[key]
    if ignored:
        print_log(
            f'ignored {len(ignored)} entries of the detection head, which '
            f'serves training only: {", ".join(ignored)}',
            'current',
        )
    for name, buffer in module.named_buffers():
        key = prefix + name
        if name.split('.')[-1] not in CONSTANTS or key not in state_dict:
            continue
        value = state_dict[key]
        if value.shape != buffer.shape or not torch.allclose(value.to(buffer), buffer, atol=1e-4):
            raise ValueError(
                f'{key} of the file has shape {tuple(value.shape)} and other '
                f'places than those of this model, {tuple(buffer.shape)}: it '
                'was trained with another point_cloud_range or grid_shape'
            )
        state_dict[key] = buffer
