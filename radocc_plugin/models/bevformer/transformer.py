"""From multi-level image features to a BEV map, and from it to voxels.

B batch, N cameras, H W BEV grid, Q = H * W queries, C channels.
"""

from typing import List, Optional, Sequence, Tuple

import numpy as np
import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from radocc_plugin.models.bevdet.bev_encoder import CONV_CFG
from radocc_plugin.models.bevformer.ego_motion import SHIFT_FRAMES, bev_angle, bev_shift, rotate_bev
from radocc_plugin.models.bevformer.encoder import PreviousBEV
from radocc_plugin.occ3d import NUM_CLASSES
from radocc_plugin.registry import MODELS

CAN_BUS = 18  # numbers in a CAN bus vector


@MODELS.register_module()
class TransformerOcc(BaseModule):
    """Encoder to BEV, 3D convolutions to voxels, an MLP to classes.

    Args:
        encoder: Config of the encoder; its ``embed_dims`` are C.
        pillar_h: Cells that the channels of a BEV cell are split into, along
            z; channel c * pillar_h + z belongs to height z.
        out_dim: Channels of a voxel.
        num_classes: Classes, free last.
        num_cams: Cameras N.
        num_feature_levels: Rows of the level embedding; at least the
            encoder's levels. Published models with two levels have four.
        shift_frame: Formula of the previous BEV's shift, see ``bev_shift``:
            ``'ego'``, or ``'lidar'`` for weights trained with published code.
        rotate_center: Cell (x, y) about which the previous BEV is turned,
            (100, 100) in published code, whatever the grid; where the ego
            stands by default, which is there for 200 x 200 cells.
        upsample: Each cell of the volume is predicted as ``upsample`` ** 3
            voxels by the last linear layer; 1 as published.

    Raises:
        ValueError: If ``shift_frame`` is unknown, or a number does not fit
            the encoder.

    CVPR2023-Occ @4781df9.
    """

    def __init__(
        self,
        encoder: dict,
        pillar_h: int = 16,
        out_dim: int = 32,
        num_classes: int = NUM_CLASSES,
        num_cams: int = 6,
        num_feature_levels: int = 4,
        shift_frame: str = 'ego',
        rotate_center: Optional[Tuple[float, float]] = None,
        upsample: int = 1,
        init_cfg: Optional[dict] = None,
    ) -> None:
        super().__init__(init_cfg)
        if shift_frame not in SHIFT_FRAMES:
            raise ValueError(f'shift_frame takes one of {SHIFT_FRAMES}, got {shift_frame!r}')
        self.encoder = MODELS.build(encoder)
        channels = self.embed_dims = self.encoder.embed_dims
        if channels % pillar_h:
            raise ValueError(f'pillar_h takes a divisor of embed_dims, {channels}, got {pillar_h}')
        if num_feature_levels < self.encoder.num_levels:
            raise ValueError(
                'num_feature_levels takes at least num_levels of '
                f'the encoder, {self.encoder.num_levels}, got '
                f'{num_feature_levels}'
            )
        self.pillar_h = pillar_h
        self.num_classes = num_classes
        self.shift_frame = shift_frame
        self.rotate_center = rotate_center
        self.upsample = upsample
        self.level_embeds = nn.Parameter(torch.randn(num_feature_levels, channels))
        self.cams_embeds = nn.Parameter(torch.randn(num_cams, channels))
        self.can_bus_mlp = nn.Sequential(
            nn.Linear(CAN_BUS, channels // 2),
            nn.ReLU(),
            nn.Linear(channels // 2, channels),
            nn.ReLU(),
        )
        self.can_bus_mlp.add_module('norm', nn.LayerNorm(channels))
        self.decoder = nn.Sequential(
            *(
                ConvModule(
                    in_dim,
                    out_dim,
                    3,
                    padding=1,
                    bias=False,
                    conv_cfg=CONV_CFG,
                    norm_cfg=dict(type='BN3d'),
                )
                for in_dim in (channels // pillar_h, out_dim)
            )
        )
        self.predicter = nn.Sequential(
            nn.Linear(out_dim, 2 * out_dim),
            nn.Softplus(),
            nn.Linear(2 * out_dim, num_classes * upsample**3),
        )

    def init_weights(self) -> None:
        """Xavier's weights everywhere but where attentions and embeddings
        have their own."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        super().init_weights()
        nn.init.normal_(self.level_embeds)
        nn.init.normal_(self.cams_embeds)

    def forward(
        self,
        levels: Sequence[Tensor],
        query: Tensor,
        query_pos: Tensor,
        *,
        ego2img: Tensor,
        image_shape: Tuple[int, int],
        can_bus: np.ndarray,
        bda_mat: np.ndarray,
        bev_shape: Tuple[int, int],
        point_cloud_range: Sequence[float],
        previous: Optional[PreviousBEV] = None,
    ) -> Tensor:
        """The BEV map (B, Q, C) of a frame.

        Args:
            levels: Image features, each (B, N, C, h, w).
            query: BEV embedding, shape (Q, C).
            query_pos: Position embedding, shape (Q, C).
            ego2img: See ``project_pillars``, shape (B, N, 4, 4).
            image_shape: Height and width of the network input.
            can_bus: CAN bus vectors relative to the frame before, (B, 18);
                see ``datasets.poses.relative_can_bus``.
            bda_mat: Ego to augmented ego, shape (B, 4, 4).
            bev_shape: H and W.
            point_cloud_range: Lower and upper bounds, metres.
            previous: BEV of the frame before, in the frame's own axes.

        Raises:
            ValueError: If the encoder takes another number of levels, or the
                model another number of cameras.
        """
        num_cams = len(self.cams_embeds)
        if levels[0].shape[1] != num_cams:
            raise ValueError(
                f'num_cams of TransformerOcc is {num_cams}, but samples have '
                f'{levels[0].shape[1]} cameras; mind cams of the dataset'
            )
        if len(levels) != self.encoder.num_levels:
            raise ValueError(
                f'the encoder takes {self.encoder.num_levels} '
                f'levels, got {len(levels)}; mind num_outs of '
                'the neck'
            )
        shift = bev_shift(can_bus, bda_mat, point_cloud_range, self.shift_frame)
        if previous is not None:
            centre = self.rotate_center or [
                -low / (high - low) * size
                for low, high, size in zip(
                    point_cloud_range[:2], point_cloud_range[3:5], bev_shape[::-1]
                )
            ]
            previous = previous._replace(
                bev=rotate_bev(previous.bev, bev_shape, bev_angle(can_bus, bda_mat), centre)
            )
        vectors = torch.from_numpy(can_bus).to(query)
        queries = query + self.can_bus_mlp(vectors)[:, None]
        features, level_shapes = self.flatten_levels(levels)
        return self.encoder(
            queries,
            query_pos.expand_as(queries),
            features,
            level_shapes,
            ego2img,
            image_shape,
            bev_shape,
            point_cloud_range,
            shift,
            previous,
        )

    def flatten_levels(self, levels: Sequence[Tensor]) -> Tuple[Tensor, List[Tuple[int, int]]]:
        """Features with embeddings, (B, N, S, C), and the levels' shapes."""
        flat = [
            level.flatten(3).transpose(2, 3) + self.cams_embeds[:, None] + embed
            for level, embed in zip(levels, self.level_embeds)
        ]
        return torch.cat(flat, 2), [tuple(x.shape[-2:]) for x in levels]

    def decode(self, bev: Tensor, bev_shape: Tuple[int, int]) -> Tensor:
        """Logits (B, X, Y, Z, classes) of a BEV map (B, Q, C)."""
        volume = bev.transpose(1, 2).unflatten(2, bev_shape).unflatten(1, (-1, self.pillar_h))
        logits = self.predicter(self.decoder(volume).permute(0, 4, 3, 2, 1))
        if self.upsample == 1:
            return logits
        u = self.upsample
        fine = logits.unflatten(-1, (u, u, u, self.num_classes))
        fine = fine.permute(0, 1, 4, 2, 5, 3, 6, 7)
        return fine.flatten(5, 6).flatten(3, 4).flatten(1, 2)
