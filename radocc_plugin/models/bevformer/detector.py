"""The BEVFormer-Occ model."""

from contextlib import contextmanager
from typing import Dict, Iterator, List, Optional, Sequence, Union

import numpy as np
import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from radocc_plugin.models.bevformer.frames import Frame, current_frame, past_frames
from radocc_plugin.models.bevformer.grid_mask import GridMask
from radocc_plugin.models.bevformer.history import History, SceneStream, seen_from
from radocc_plugin.registry import MODELS
from radocc_plugin.structures import OccData

MODES = ('loss', 'predict', 'tensor')


@MODELS.register_module()
class BEVFormerOcc(BaseModel):
    """Camera-only occupancy by attention from BEV to images and to the past.

    A batch with adjacent frames (the dataset's ``queue_length``) is a queue:
    they are run from the oldest on, without gradients and in eval mode, and
    the last BEV map is what the current frame looks back to. A batch without
    is, in eval mode and other than for losses, the next frame of a stream:
    the model looks back to what ``stream`` has of the same scenes.

    Submodules carry the names that published checkpoints use. BEV maps are
    (B, H * W, C), row y and column x of the augmented ego frame, logits (B,
    X, Y, Z, C).

    Args:
        img_backbone: Image backbone.
        img_neck: Image neck; returns the levels that the encoder takes.
        pts_bbox_head: The head with queries and transformer.
        use_grid_mask: Whether training images of the current frame go
            through ``GridMask``.
        video_test_mode: Whether to look back in a stream. Without, a batch
            that is no queue has no past.
        max_scenes: Scenes that a stream remembers, see ``SceneStream``.
        data_preprocessor: See ``radocc_plugin.OccDataPreprocessor``.

    BEVFormer, arXiv 2203.17270; CVPR2023-Occ @4781df9.
    """

    def __init__(
        self,
        img_backbone: dict,
        img_neck: dict,
        pts_bbox_head: dict,
        use_grid_mask: bool = False,
        video_test_mode: bool = True,
        max_scenes: int = 8,
        data_preprocessor: Optional[dict] = None,
        init_cfg: Optional[dict] = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.img_backbone = MODELS.build(img_backbone)
        self.img_neck = MODELS.build(img_neck)
        self.pts_bbox_head = MODELS.build(pts_bbox_head)
        self.grid_mask = GridMask() if use_grid_mask else nn.Identity()
        self.video_test_mode = video_test_mode
        self.stream = SceneStream(max_scenes)

    @property
    def is_streaming(self) -> bool:
        """Whether a prediction depends on the calls before it."""
        return self.video_test_mode

    @property
    def occ_tap(self) -> dict:
        """Where the distiller picks up the logits, see ``OccTap``."""
        weight = self.pts_bbox_head.class_weight
        return dict(
            module='pts_bbox_head',
            layout='b x y z c',
            class_weight=None if weight is None else weight.tolist(),
        )

    def train(self, mode: bool = True) -> 'BEVFormerOcc':
        """As usual; training makes what ``stream`` remembers worthless."""
        if mode:
            self.stream.reset()
        return super().train(mode)

    def forward(
        self,
        inputs: dict,
        data_samples: Sequence,
        mode: str = 'tensor',
        stream: Optional[SceneStream] = None,
    ) -> Union[Tensor, Dict[str, Tensor], List]:
        """Losses, predictions or logits of a batch.

        Args:
            inputs: ``imgs`` (B, N, 3, H, W), normalised, and, for a queue,
                ``adjacent_imgs`` (B, A, N, 3, H, W), newest first.
            data_samples: B samples with calibration and CAN bus vectors (see
                ``current_frame`` and ``past_frames``), in a stream with
                ``scene_token`` and ``timestamp``; in mode ``loss`` with
                ``gt_occ``.
            mode: ``loss`` for the losses, ``predict`` for the samples with
                ``pred_occ``, ``tensor`` for logits (B, X, Y, Z, C).
            stream: What to remember frames in; the model's own by default.

        Raises:
            ValueError: If ``mode`` is none of them, or metainfo is missing.
        """
        if mode not in MODES:
            raise ValueError(f"mode takes 'loss', 'predict' or 'tensor', got {mode!r}")
        frame = current_frame(inputs['imgs'], data_samples)
        past = inputs.get('adjacent_imgs')
        streams = past is None and mode != 'loss' and self.video_test_mode and not self.training
        if streams:
            stream = self.stream if stream is None else stream
            history = stream.recall(data_samples, frame.images.device)
        else:
            history = self.encode_queue(past_frames(past, data_samples), len(data_samples))
        bev = self.encode(frame, history)
        if streams:
            stream.remember(data_samples, frame, bev)
        logits = self.pts_bbox_head(bev)
        if mode == 'tensor':
            return logits
        if mode == 'predict':
            return self.add_predictions(logits, data_samples)
        return self.pts_bbox_head.loss(logits, data_samples)

    def encode_queue(self, frames: Sequence[Frame], batch_size: int) -> Optional[History]:
        """The last BEV maps of a queue, without gradients, in eval mode.

        Args:
            frames: Past frames, oldest first.
            batch_size: Samples of the batch.
        """
        history = None
        with torch.no_grad(), evaluating(self):
            for frame in frames:
                bev = self.encode(frame, history)
                if history is None:
                    history = History(
                        bev.new_zeros(batch_size, *bev.shape[1:]),
                        np.zeros((batch_size, frame.can_bus.shape[1])),
                        np.zeros(batch_size, bool),
                    )
                history.update(frame, bev)
        # Under no_grad autocast may keep casts of the weights that carry no
        # gradient; the current frame needs its own.
        torch.clear_autocast_cache()
        return history

    def encode(self, frame: Frame, history: Optional[History]) -> Tensor:
        """The BEV maps (b, H * W, C) of a frame of b samples."""
        can_bus, previous = seen_from(frame, history)
        return self.pts_bbox_head.encode(
            self.extract_levels(frame.images),
            previous,
            ego2img=frame.ego2img,
            image_shape=tuple(frame.images.shape[-2:]),
            can_bus=can_bus,
            bda_mat=frame.bda_mat,
        )

    def extract_levels(self, images: Tensor) -> List[Tensor]:
        """Image features (b, N, C, h, w) of each level."""
        levels = self.img_neck(self.img_backbone(self.grid_mask(images.flatten(0, 1))))
        return [level.unflatten(0, images.shape[:2]) for level in levels]

    def add_predictions(self, logits: Tensor, data_samples: Sequence) -> List:
        """The samples with ``pred_occ.semantics`` (X, Y, Z), uint8."""
        for sample, labels in zip(data_samples, logits.argmax(dim=-1)):
            sample.pred_occ = OccData(semantics=labels.to(torch.uint8))
        return list(data_samples)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; each module's own mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
