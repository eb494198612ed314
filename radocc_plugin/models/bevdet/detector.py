"""The BEVDet-Occ and FlashOcc models."""

from typing import Dict, List, Optional, Sequence, Tuple, Union

import torch
from mmengine.model import BaseModel
from torch import Tensor

from radocc_plugin.models.bevdet.frames import Frame, split_frames
from radocc_plugin.models.lift_splat.depth import check_stride
from radocc_plugin.registry import MODELS
from radocc_plugin.structures import OccData

# Layers that BEVDet dev2.1 keeps in the detector and FlashOCC in the head.
HEAD_LAYERS = ('final_conv.', 'predicter.')


@MODELS.register_module()
class BEVDetOcc(BaseModel):
    """Camera-only occupancy by lift-splat and an encoder in 3D or BEV.

    With ``num_adj`` the volumes of earlier frames are stacked to the current
    one's: they are lifted straight into the current augmented-ego frame
    (``adjacent_cam2ego`` has the ego motion), without gradients. A stereo view
    transformer compares each frame with the one before it, so the batch holds
    one more frame, of which only the stereo feature is computed: ``adjacent``
    of the dataset counts ``num_adj + 1`` keyframes back.

    Submodules carry the names that published checkpoints use; checkpoints of
    BEVDet dev2.1, which have the head's layers in the detector, load too.
    Volumes inside are (B, C, Z, Y, X) or (B, C, Y, X) in the augmented-ego
    frame, logits (B, X, Y, Z, C).

    Args:
        img_backbone: Image backbone; one of ``stereo_backbones`` for stereo.
        img_neck: Image neck; returns one feature map.
        img_view_transformer: Image features to a volume.
        img_bev_encoder_backbone: Volume to levels of volumes.
        img_bev_encoder_neck: Levels to one volume.
        occ_head: Volume to logits; owns the occupancy loss.
        pre_process_net: Applied to each lifted volume, if any.
        num_adj: Earlier frames that are lifted.
        data_preprocessor: See ``radocc_plugin.OccDataPreprocessor``.
    """

    def __init__(
        self,
        img_backbone: dict,
        img_neck: dict,
        img_view_transformer: dict,
        img_bev_encoder_backbone: dict,
        img_bev_encoder_neck: dict,
        occ_head: dict,
        pre_process_net: Optional[dict] = None,
        num_adj: int = 0,
        data_preprocessor: Optional[dict] = None,
        init_cfg: Optional[dict] = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.img_backbone = build(img_backbone)
        self.img_neck = build(img_neck)
        self.img_view_transformer = build(img_view_transformer)
        self.pre_process_net = build(pre_process_net)
        self.img_bev_encoder_backbone = build(img_bev_encoder_backbone)
        self.img_bev_encoder_neck = build(img_bev_encoder_neck)
        self.occ_head = build(occ_head)
        self.num_adj = num_adj
        self._register_load_state_dict_pre_hook(_move_into_head)

    @property
    def occ_tap(self) -> dict:
        """Where the distiller picks up the logits, see ``OccTap``."""
        weight = self.occ_head.class_weight
        return dict(
            module='occ_head',
            layout='b x y z c',
            class_weight=None if weight is None else weight.tolist(),
        )

    @property
    def point_cloud_range(self) -> Optional[Tuple[float, ...]]:
        """Range of the predicted volume; None without cameras."""
        grid = getattr(self.img_view_transformer, 'grid', None)
        return grid and grid.point_cloud_range

    @property
    def stereo(self) -> bool:
        """Whether frames are compared with the one before them."""
        return getattr(self.img_view_transformer, 'stereo', False)

    def forward(
        self, inputs: dict, data_samples: Sequence, mode: str = 'tensor'
    ) -> Union[Tensor, Dict[str, Tensor], List]:
        """Losses, predictions or logits of a batch.

        Args:
            inputs: ``imgs`` (B, N, 3, H, W), normalised, and, for a model
                that looks back, ``adjacent_imgs`` (B, A, N, 3, H, W), newest
                first.
            data_samples: B samples with the calibration in their metainfo
                (see ``split_frames``); in mode ``loss`` with ``gt_occ`` and,
                if the view transformer is supervised, ``gt_depth``.
            mode: ``loss`` for the losses, ``predict`` for the samples with
                ``pred_occ``, ``tensor`` for logits (B, X, Y, Z, C).

        Raises:
            ValueError: If ``mode`` is none of them.
        """
        if mode not in ('loss', 'predict', 'tensor'):
            raise ValueError(f"mode takes 'loss', 'predict' or 'tensor', got {mode!r}")
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
        self, inputs: dict, data_samples: Sequence
    ) -> Tuple[Tensor, Optional[Tensor]]:
        """The BEV encoder's input and the predicted depth distributions."""
        return self.lift_images(
            inputs['imgs'], data_samples, adjacent_imgs=inputs.get('adjacent_imgs')
        )

    def lift_images(
        self,
        imgs: Tensor,
        data_samples: Sequence,
        known_depth: Optional[Tensor] = None,
        adjacent_imgs: Optional[Tensor] = None,
    ) -> Tuple[Tensor, Tensor]:
        """The volumes of all frames, stacked, and the current depths.

        Args:
            imgs: See ``forward``.
            data_samples: See ``forward``.
            known_depth: Of the current frame, see ``LSSViewTransformer``.
            adjacent_imgs: See ``forward``.

        Returns:
            The volume, channels of the oldest frame first, and the depth
            distributions of the current frame (B * N, D, H, W).
        """
        frames = split_frames(imgs, data_samples, 1 + self.num_adj + self.stereo, adjacent_imgs)
        # Oldest first: so batch norms see the frames in the published order.
        volumes = []
        with torch.no_grad():
            before = self.reference(frames[-1]) if self.stereo else None
            for frame in reversed(frames[1 : 1 + self.num_adj]):
                volume, _, before = self.lift_frame(frame, before)
                volumes.append(volume)
        volume, depth, _ = self.lift_frame(frames[0], before, known_depth)
        return torch.cat([*volumes, volume], dim=1), depth

    def reference(self, frame: Frame) -> tuple:
        """Stereo feature and geometry of a frame that is not lifted."""
        return self.img_backbone.stereo_feature(frame.images), frame.geometry

    def lift_frame(
        self, frame: Frame, before: Optional[tuple] = None, known_depth: Optional[Tensor] = None
    ) -> tuple:
        """Volume, depth distributions and stereo reference of one frame.

        Args:
            frame: The frame.
            before: ``reference`` of the frame before, for stereo.
            known_depth: See ``LSSViewTransformer``.
        """
        images, geometry = frame
        levels = self.img_backbone(images)
        matching = reference = None
        if self.stereo:
            stereo_feature, *levels = levels
            reference = stereo_feature, geometry
            previous_feature, previous_geometry = before
            matching = self.img_view_transformer.match(
                stereo_feature, previous_feature, geometry, previous_geometry
            )
        features = self.img_neck(levels)
        check_stride(images, features, self.img_view_transformer.downsample)
        volume, depth = self.img_view_transformer(features, geometry, known_depth, matching)
        if self.pre_process_net is not None:
            (volume,) = self.pre_process_net(volume)
        return volume, depth, reference

    def add_predictions(self, logits: Tensor, data_samples: Sequence) -> List:
        """The samples with ``pred_occ.semantics`` (X, Y, Z), uint8."""
        for sample, labels in zip(data_samples, logits.argmax(dim=-1)):
            sample.pred_occ = OccData(semantics=labels.to(torch.uint8))
        return list(data_samples)


def build(config: Optional[dict]):
    """The module of a config, None for None."""
    return None if config is None else MODELS.build(config)


def _move_into_head(state_dict: dict, prefix: str, *args) -> None:
    """Gives the layers that dev2.1 keeps in the detector to the head."""
    for key in list(state_dict):
        if key.startswith(tuple(prefix + name for name in HEAD_LAYERS)):
            name = key[len(prefix) :]
            state_dict[f'{prefix}occ_head.{name}'] = state_dict.pop(key)
