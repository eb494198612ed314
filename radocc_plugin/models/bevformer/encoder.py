"""BEVFormer's encoder: image features and the previous BEV to a BEV map.

B batch, N cameras, H W BEV grid, Q = H * W queries, C channels,
S cells of all levels.
"""

from typing import NamedTuple, Optional, Sequence, Tuple

import torch
from mmcv.cnn.bricks.transformer import FFN
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from radocc_plugin.models.bevformer.attention import (
    LevelShapes,
    SpatialCrossAttention,
    TemporalSelfAttention,
)
from radocc_plugin.models.bevformer.pillars import (
    SeenQueries,
    cell_centres,
    list_seen_queries,
    pillar_points,
    project_pillars,
)
from radocc_plugin.registry import MODELS


class PreviousBEV(NamedTuple):
    """BEV maps of the frames before, those of a batch that have one.

    Args:
        bev: Shape (B, Q, C); any numbers where there is none.
        exists: Which samples have one, bool, shape (B,).
    """

    bev: Tensor
    exists: Tensor


class BEVFormerLayer(BaseModule):
    """Temporal self-attention, spatial cross-attention and an MLP.

    Args:
        embed_dims: Channels C.
        num_heads: Heads of both attentions.
        num_temporal_points: See ``TemporalSelfAttention``.
        num_levels, num_points: See ``MSDeformableAttention3D``.
        feedforward_channels: Of the MLP.
        dropout: Of attentions and MLP.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        num_temporal_points: int,
        num_levels: int,
        num_points: int,
        feedforward_channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.attentions = ModuleList(
            [
                TemporalSelfAttention(embed_dims, num_heads, num_temporal_points, dropout),
                SpatialCrossAttention(
                    embed_dims,
                    dropout,
                    num_heads=num_heads,
                    num_levels=num_levels,
                    num_points=num_points,
                ),
            ]
        )
        self.ffns = ModuleList([FFN(embed_dims, feedforward_channels, ffn_drop=dropout)])
        self.norms = ModuleList([nn.LayerNorm(embed_dims) for _ in range(3)])

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        previous: Tensor,
        current: Tensor,
        reference_points: Tensor,
        bev_shape: Tuple[int, int],
        features: Tensor,
        level_shapes: LevelShapes,
        seen: SeenQueries,
    ) -> Tensor:
        """Queries (B, Q, C); see the two attentions for the arguments."""
        look_back, look_at_images = self.attentions
        query = self.norms[0](
            look_back(query, query_pos, previous, current, reference_points, bev_shape)
        )
        query = self.norms[1](look_at_images(query, features, level_shapes, seen))
        return self.norms[2](self.ffns[0](query))


@MODELS.register_module()
class BEVFormerEncoder(BaseModule):
    """A stack of BEVFormer layers.

    Args:
        num_layers: Layers.
        embed_dims: Channels C.
        num_heads: Heads of the attentions.
        num_levels: Levels of image features.
        num_points: Points that a head samples in a level of an image, a
            multiple of ``num_points_in_pillar``.
        num_points_in_pillar: Points above a BEV cell.
        num_temporal_points: Points that a head samples in a BEV map.
        feedforward_channels: Of the MLPs.
        dropout: Of attentions and MLPs.

    Raises:
        ValueError: If ``num_points`` is no such multiple, or heads do not
            share out the channels.

    BEVFormer, arXiv 2203.17270; CVPR2023-Occ @4781df9.
    """

    def __init__(
        self,
        num_layers: int = 4,
        embed_dims: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 8,
        num_points_in_pillar: int = 8,
        num_temporal_points: int = 4,
        feedforward_channels: int = 512,
        dropout: float = 0.1,
        init_cfg: Optional[dict] = None,
    ) -> None:
        super().__init__(init_cfg)
        if num_points % num_points_in_pillar:
            raise ValueError(
                'num_points takes a multiple of num_points_in_pillar, got '
                f'{num_points} and {num_points_in_pillar}'
            )
        self.embed_dims = embed_dims
        self.num_levels = num_levels
        self.num_points_in_pillar = num_points_in_pillar
        self.layers = ModuleList(
            [
                BEVFormerLayer(
                    embed_dims,
                    num_heads,
                    num_temporal_points,
                    num_levels,
                    num_points,
                    feedforward_channels,
                    dropout,
                )
                for _ in range(num_layers)
            ]
        )

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        features: Tensor,
        level_shapes: LevelShapes,
        ego2img: Tensor,
        image_shape: Tuple[int, int],
        bev_shape: Tuple[int, int],
        point_cloud_range: Sequence[float],
        shift: Tensor,
        previous: Optional[PreviousBEV],
    ) -> Tensor:
        """The BEV map (B, Q, C) of a frame.

        Args:
            query: Initial queries, shape (B, Q, C).
            query_pos: Their position embedding, shape (B, Q, C).
            features: Image features, shape (B, N, S, C).
            level_shapes: Height and width of the levels.
            ego2img: See ``project_pillars``, shape (B, N, 4, 4).
            image_shape: Height and width of the network input.
            bev_shape: H and W.
            point_cloud_range: Lower and upper bounds, metres.
            shift: See ``bev_shift``, shape (B, 2); as published, it moves the
                reference points in both maps.
            previous: The BEV of the frame before, turned into the current
                one; None if no sample has one.
        """
        points = pillar_points(
            bev_shape, self.num_points_in_pillar, point_cloud_range, query.device
        )
        seen = list_seen_queries(*project_pillars(points, point_cloud_range, ego2img, image_shape))
        reference_points = cell_centres(bev_shape, query.device) + shift.to(query.device)[:, None]
        initial = query
        for layer in self.layers:
            # With a previous BEV, the current map of every layer is that of
            # the initial queries; without, both maps are the running queries.
            maps = query, query
            if previous is not None:
                exists = previous.exists.to(query.device)[:, None, None]
                maps = (
                    torch.where(exists, previous.bev, query),
                    torch.where(exists, initial, query),
                )
            query = layer(
                query, query_pos, *maps, reference_points, bev_shape, features, level_shapes, seen
            )
        return query
