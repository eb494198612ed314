"""The BEVDet-Occ model."""
from typing import Dict, List, Optional, Sequence, Tuple, Union

import torch
from mmengine.model import BaseModel
from torch import Tensor

from radocc_plugin.registry import MODELS
from radocc_plugin.structures import OccData
from .view_geometry import ViewGeometry


@MODELS.register_module()
class BEVDetOcc(BaseModel):
    """Camera-only occupancy by lift-splat and a 3D encoder.

    Submodules carry the names that published checkpoints use. Volumes inside
    are (B, C, Z, Y, X) in the augmented-ego frame, logits (B, X, Y, Z, C).

    Args:
        img_backbone: Image backbone.
        img_neck: Image neck; returns one feature map.
        img_view_transformer: Image features to a volume.
        img_bev_encoder_backbone: Volume to levels of volumes.
        img_bev_encoder_neck: Levels to one volume.
        occ_head: Volume to logits; owns the occupancy loss.
        pre_process_net: Applied to the lifted volume, if any.
        data_preprocessor: See ``radocc_plugin.OccDataPreprocessor``.
    """

    # Where the distiller picks up the logits.
    occ_tap = dict(module='occ_head', layout='b x y z c')

    def __init__(self,
                 img_backbone: dict,
                 img_neck: dict,
                 img_view_transformer: dict,
                 img_bev_encoder_backbone: dict,
                 img_bev_encoder_neck: dict,
                 occ_head: dict,
                 pre_process_net: Optional[dict] = None,
                 data_preprocessor: Optional[dict] = None,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.img_backbone = build(img_backbone)
        self.img_neck = build(img_neck)
        self.img_view_transformer = build(img_view_transformer)
        self.pre_process_net = build(pre_process_net)
        self.img_bev_encoder_backbone = build(img_bev_encoder_backbone)
        self.img_bev_encoder_neck = build(img_bev_encoder_neck)
        self.occ_head = build(occ_head)

    def forward(
        self,
        inputs: dict,
        data_samples: Sequence,
        mode: str = 'tensor'
    ) -> Union[Tensor, Dict[str, Tensor], List]:
        """Losses, predictions or logits of a batch.

        Args:
            inputs: ``imgs`` (B, N, 3, H, W), normalised.
            data_samples: B samples with the calibration in their metainfo;
                in mode ``loss`` with ``gt_occ`` and, if the view transformer
                is supervised, ``gt_depth``.
            mode: ``loss`` for the losses, ``predict`` for the samples with
                ``pred_occ``, ``tensor`` for logits (B, X, Y, Z, C).

        Raises:
            ValueError: If ``mode`` is none of them.
        """
        if mode not in ('loss', 'predict', 'tensor'):
            raise ValueError(
                f"mode takes 'loss', 'predict' or 'tensor', got {mode!r}")
        volume, depth = self.extract_volume(inputs, data_samples)
        levels = self.img_bev_encoder_backbone(volume)
        logits = self.occ_head(self.img_bev_encoder_neck(levels))
        if mode == 'tensor':
            return logits
        if mode == 'predict':
            return self.add_predictions(logits, data_samples)
        losses = self.occ_head.loss(logits, data_samples)
        if depth is not None:
            losses.update(self.img_view_transformer.loss(depth, data_samples))
        return losses

    def extract_volume(
            self, inputs: dict,
            data_samples: Sequence) -> Tuple[Tensor, Optional[Tensor]]:
        """The BEV encoder's input and the predicted depth distributions."""
        return self.lift_images(inputs['imgs'], data_samples)

    def lift_images(
            self,
            imgs: Tensor,
            data_samples: Sequence,
            known_depth: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        """Volume and depth distributions, see ``LSSViewTransformer``."""
        features = self.img_neck(self.img_backbone(imgs.flatten(0, 1)))
        geometry = ViewGeometry.from_data_samples(data_samples, imgs.device)
        volume, depth = self.img_view_transformer(features, geometry,
                                                  known_depth)
        if self.pre_process_net is not None:
            volume = self.pre_process_net(volume)[0]
        return volume, depth

    def add_predictions(self, logits: Tensor, data_samples: Sequence) -> List:
        """The samples with ``pred_occ.semantics`` (X, Y, Z), uint8."""
        for sample, labels in zip(data_samples, logits.argmax(dim=-1)):
            sample.pred_occ = OccData(semantics=labels.to(torch.uint8))
        return list(data_samples)


def build(config: Optional[dict]):
    """The module of a config, None for None."""
    return None if config is None else MODELS.build(config)
