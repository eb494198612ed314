"""The FB-OCC model."""

import warnings
from typing import Dict, List, Optional, Sequence, Tuple, Union

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from radocc_plugin.models.fbocc.backward_projection import BackwardProjection
from radocc_plugin.models.fbocc.forward_projection import ForwardProjection
from radocc_plugin.models.fbocc.history import (
    Memory,
    StreamState,
    append,
    cell2past_cell,
    fuse,
    warp,
)
from radocc_plugin.models.fbocc.occ_head import VOID
from radocc_plugin.models.lift_splat import ViewGeometry
from radocc_plugin.models.lift_splat.depth import check_stride, depth_loss, one_hot_depth
from radocc_plugin.models.lift_splat.depth_net import DepthNet
from radocc_plugin.registry import MODELS
from radocc_plugin.structures import OccData

STREAM_KEYS = ('token', 'prev', 'sequence_group_idx', 'start_of_sequence', 'ego2prev_ego')


@MODELS.register_module()
class FBOcc(BaseModel):
    """Camera-only occupancy by forward and backward projection over time.

    Frames are streamed: what is left of the past is in ``streams``, one state
    for training and one for testing, so that a validation does not disturb the
    training. Each sample of a batch belongs to a sequence and finds its past
    by that, whatever slot it comes in.

    Submodules carry the names of published checkpoints. Volumes are (B, C, Y,
    X, Z) in the augmented-ego frame.

    Args:
        img_backbone: Image backbone.
        img_neck: Image neck; returns one feature map.
        depth_net: Further arguments of BEVDet-Occ's ``DepthNet``, with
            ``in_channels`` and ``mid_channels``.
        grid_config: ``x``, ``y``, ``z`` as (lower, upper, cell size) in metres
            of the augmented-ego frame and ``depth`` as (first, end, step).
        img_bev_encoder_backbone: Volume to levels of volumes.
        img_bev_encoder_neck: Levels to levels.
        occupancy_head: Levels to logits; owns the occupancy losses.
        backward_projection: Further arguments of ``BackwardProjection``.
        channels: Channels C of context and volume.
        num_history: Past frames T that are kept.
        frame_interval: Seconds between frames.
        loss_depth_weight: Weight of the LiDAR depth loss; 0 for none.
        downsample: Stride of the image features.
        published_motion: Whether, as published, the copies of the current
            frame that stand for the past while ``do_history`` is off are moved
            by the ego motion and, in the middle of a sequence, are said to be
            one frame old.
        data_preprocessor: See ``radocc_plugin.OccDataPreprocessor``.

    FB-OCC, arXiv 2307.01492 (FB-BEV @6e25469).
    """

    # A prediction depends on the calls before it.
    is_streaming = True

    def __init__(
        self,
        img_backbone: dict,
        img_neck: dict,
        depth_net: dict,
        grid_config: Dict[str, Sequence[float]],
        img_bev_encoder_backbone: dict,
        img_bev_encoder_neck: dict,
        occupancy_head: dict,
        backward_projection: Optional[dict] = None,
        channels: int = 80,
        num_history: int = 16,
        frame_interval: float = 0.5,
        loss_depth_weight: float = 1.0,
        downsample: int = 16,
        published_motion: bool = True,
        data_preprocessor: Optional[dict] = None,
        init_cfg: Optional[dict] = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.img_backbone = MODELS.build(img_backbone)
        self.img_neck = MODELS.build(img_neck)
        self.forward_projection = ForwardProjection(grid_config, downsample)
        self.depth_bins = self.forward_projection.depth_bins
        self.num_bins = self.depth_bins.count
        self.depth_net = DepthNet(
            context_channels=channels, depth_channels=self.num_bins, **depth_net
        )
        self.backward_projection = BackwardProjection(
            self.forward_projection.grid, self.depth_bins, channels, **(backward_projection or {})
        )
        self.history_keyframe_time_conv = _conv_norm_relu(channels + 1, channels)
        self.history_keyframe_cat_conv = _conv_norm_relu(channels * (1 + num_history), channels)
        self.img_bev_encoder_backbone = MODELS.build(img_bev_encoder_backbone)
        self.img_bev_encoder_neck = MODELS.build(img_bev_encoder_neck)
        self.occupancy_head = MODELS.build(occupancy_head)
        self.num_history = num_history
        self.frame_interval = frame_interval
        self.loss_depth_weight = loss_depth_weight
        self.downsample = downsample
        self.published_motion = published_motion
        # Whether training uses the past; see HistoryScheduleHook.
        self.do_history = True
        self.streams = dict(train=StreamState(), test=StreamState())

    @property
    def point_cloud_range(self) -> Tuple[float, ...]:
        """Range of the predicted volume."""
        return self.forward_projection.grid.point_cloud_range

    @property
    def occ_tap(self) -> dict:
        """Where the distiller picks up the logits; void is no label."""
        return dict(
            module='occupancy_head',
            layout='b c y x z',
            class_order=list(range(VOID, VOID + self.occupancy_head.num_classes)),
        )

    def forward(
        self, inputs: dict, data_samples: Sequence, mode: str = 'tensor'
    ) -> Union[Tensor, Dict[str, Tensor], List]:
        """Losses, predictions or logits of a batch, the next of its streams.

        Args:
            inputs: ``imgs`` (B, N, 3, H, W), normalised.
            data_samples: B samples with the calibration and ``STREAM_KEYS`` in
                their metainfo; in mode ``loss`` with ``gt_occ`` and, if depth
                is supervised, ``gt_depth``.
            mode: ``loss`` for the losses, ``predict`` for the samples with
                ``pred_occ``, ``tensor`` for logits (B, X, Y, Z, C) of Occ3D's
                classes.

        Raises:
            ValueError: If ``mode`` is none of them, or a sample lacks what its
                stream needs.
        """
        if mode not in ('loss', 'predict', 'tensor'):
            raise ValueError(f"mode takes 'loss', 'predict' or 'tensor', got {mode!r}")
        volume, depth = self.extract_volume(inputs, data_samples)
        # as published, in float32 under mixed precision too
        with torch.autocast(volume.device.type, enabled=False):
            levels = self.img_bev_encoder_neck(self.img_bev_encoder_backbone(volume))
            void_logits = self.occupancy_head(levels)
        if mode == 'loss':
            losses = self.occupancy_head.loss(void_logits, data_samples)
            losses.update(self.depth_loss(depth, data_samples))
            return losses
        logits = void_logits[:, VOID:].permute(0, 3, 2, 4, 1)
        if mode == 'tensor':
            return logits
        for sample, labels in zip(data_samples, logits.argmax(dim=-1)):
            sample.pred_occ = OccData(semantics=labels.to(torch.uint8))
        return list(data_samples)

    def extract_volume(self, inputs: dict, data_samples: Sequence) -> Tuple[Tensor, Tensor]:
        """The 3D encoder's input and the predicted depth distributions.

        Returns:
            Shapes (B, C, Y, X, Z) and (B * N, D, h, w), float32.
        """
        geometry = ViewGeometry.from_data_samples(data_samples)
        images = inputs['imgs'].flatten(0, 1)
        depth, context = self.predict_depth(images, geometry)
        with torch.autocast(images.device.type, enabled=False):
            volume = self.forward_projection(depth, context, geometry)
            bev = self.backward_projection(
                volume, context, depth, geometry, tuple(images.shape[-2:])
            )
            volume = self.fuse_history(volume + bev[..., None], data_samples, geometry.bda_mat)
        return volume, depth

    def predict_depth(self, images: Tensor, geometry: ViewGeometry) -> Tuple[Tensor, Tensor]:
        """Depth distributions and context of images (B * N, 3, H, W)."""
        features = self.img_neck(self.img_backbone(images))
        check_stride(images, features, self.downsample)
        camera = geometry.depth_net_input().to(images.device)
        prediction = self.depth_net(features, camera).float()
        return (prediction[:, : self.num_bins].softmax(dim=1), prediction[:, self.num_bins :])

    def depth_loss(self, depth: Tensor, data_samples: Sequence) -> Dict[str, Tensor]:
        """``loss_depth`` against the LiDAR's depth maps; empty for weight 0.

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
        targets = one_hot_depth(
            torch.cat([sample.gt_depth for sample in data_samples]),
            self.depth_bins,
            self.downsample,
            tuple(depth.shape[-2:]),
        )
        return dict(loss_depth=self.loss_depth_weight * depth_loss(depth, targets))

    def fuse_history(self, volumes: Tensor, data_samples: Sequence, bda_mats: Tensor) -> Tensor:
        """Fuses the volumes with the past of their streams, which goes on.

        Args:
            volumes: Shape (B, C, Y, X, Z).
            data_samples: B samples with ``STREAM_KEYS`` in their metainfo.
            bda_mats: Key ego to augmented ego, shape (B, 4, 4), float64.
        """
        state = self.streams['train' if self.training else 'test']
        pasts, memories = [], {}
        for volume, sample, bda_mat in zip(volumes, data_samples, bda_mats):
            metainfo = stream_metainfo(sample)
            past, steps = self.recall(state, metainfo, volume.detach(), bda_mat)
            pasts.append((past, steps))
            # at once: a frame may follow one of its own batch
            token = metainfo['token']
            state.memories[token] = memories[token] = Memory(*append(past, volume, steps), bda_mat)
        state.memories = memories
        past, steps = map(torch.stack, zip(*pasts))
        return fuse(
            volumes,
            past,
            steps,
            self.frame_interval,
            self.history_keyframe_time_conv,
            self.history_keyframe_cat_conv,
        )

    def forget_non_finite(self) -> None:
        """Drops pasts that are not finite: their streams start anew."""
        for state in self.streams.values():
            state.memories = {
                token: memory
                for token, memory in state.memories.items()
                if memory.volumes.isfinite().all()
            }

    def stream_state(self) -> dict:
        """What the training carries to its next batch, to be saved.

        Tensors on the CPU, by the token of the frame: ``volumes`` (T, C, Y, X,
        Z), ``steps`` (T,) and ``bda_mat`` (4, 4) of a ``Memory``.
        """
        return {
            token: {name: value.cpu() for name, value in vars(memory).items()}
            for token, memory in self.streams['train'].memories.items()
        }

    def load_stream_state(self, state: dict) -> None:
        """Goes on from what ``stream_state`` returned."""
        device = next(self.parameters()).device
        self.streams['train'].memories = {
            token: Memory(**{name: value.to(device) for name, value in memory.items()})
            for token, memory in state.items()
        }

    def recall(
        self, state: StreamState, metainfo: dict, volume: Tensor, bda_mat: Tensor
    ) -> Tuple[Tensor, Tensor]:
        """The T frames before one, in its augmented ego, and their steps.

        Without a past, it is the frame itself, T times.
        """
        ego2prev_ego = torch.as_tensor(metainfo['ego2prev_ego']).double()
        grid = self.forward_projection.grid
        memory = None
        if self.do_history or not self.training:
            memory = state.recall(metainfo)
            if memory is None and not metainfo['start_of_sequence']:
                warnings.warn(
                    'A frame in the middle of a sequence came without the one '
                    'before it and is taken as a start; FBOcc takes whole '
                    'sequences in the order of time (StreamBatchSampler, '
                    'SceneSampler)'
                )
        if memory is not None:
            moved = cell2past_cell(grid, bda_mat, ego2prev_ego, memory.bda_mat)
            return (warp(memory.volumes.to(volume), moved), memory.steps.to(volume) + 1)
        past = volume.expand(self.num_history, *volume.shape)
        steps = volume.new_zeros(self.num_history)
        if self.training and not self.do_history and self.published_motion:
            past = warp(past, cell2past_cell(grid, bda_mat, ego2prev_ego, bda_mat))
            steps += not metainfo['start_of_sequence']
        return past, steps


def stream_metainfo(sample) -> dict:
    """The entries of ``STREAM_KEYS`` of a data sample.

    Raises:
        ValueError: If one is missing.
    """
    missing = [key for key in STREAM_KEYS if key not in sample.metainfo]
    if missing:
        raise ValueError(
            f'data_samples lack the metainfo {missing}, which FBOcc streams '
            'by; set sequences_split of the dataset'
        )
    return {key: sample.metainfo[key] for key in STREAM_KEYS}


def _conv_norm_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, 1), nn.BatchNorm3d(out_channels), nn.ReLU(inplace=True)
    )
