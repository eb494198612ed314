"""The two attentions of a BEVFormer layer.

B batch, N cameras, H W BEV grid, Q = H * W queries, C channels, M heads,
L levels, P points, D points of a pillar, S cells of all levels.
"""

import math
from typing import Sequence, Tuple

import torch
from mmengine.model import BaseModule, constant_init, xavier_init
from torch import Tensor, nn

from radocc_plugin.models.bevformer.deformable_attention import deformable_attention
from radocc_plugin.models.bevformer.pillars import SeenQueries

LevelShapes = Sequence[Tuple[int, int]]


def check_heads(embed_dims: int, num_heads: int) -> None:
    """Raises a ValueError unless the heads share out the channels."""
    if embed_dims % num_heads:
        raise ValueError(
            f'embed_dims takes a multiple of num_heads, got {embed_dims} and {num_heads}'
        )


def circle_offsets(num_heads: int, num_points: int) -> Tensor:
    """Offsets of a new attention: a direction a head, farther by point.

    Returns:
        Cells, shape (M, P, 2); Deformable DETR, arXiv 2010.04159, A.4.
    """
    angles = torch.arange(num_heads) * (2 * math.pi / num_heads)
    directions = torch.stack((angles.cos(), angles.sin()), -1)
    directions /= directions.abs().amax(-1, keepdim=True)
    return directions[:, None] * torch.arange(1, num_points + 1)[:, None]


def init_deformable(attention: nn.Module, offsets: Tensor) -> None:
    """Equal weights at fixed ``offsets``, Xavier's weights for the rest."""
    constant_init(attention.sampling_offsets, 0.0)
    attention.sampling_offsets.bias.data.copy_(offsets.flatten())
    constant_init(attention.attention_weights, 0.0)
    xavier_init(attention.value_proj, distribution='uniform')


class TemporalSelfAttention(BaseModule):
    """BEV queries look at the previous BEV and at the current one.

    Args:
        embed_dims: Channels C.
        num_heads: Heads M.
        num_points: Points P that a head samples in each of both maps.
        dropout: Of the output.

    BEVFormer, arXiv 2203.17270, section 3.4; CVPR2023-Occ @4781df9, with the
    previous BEV of each sample where published code takes rows of other
    samples of a batch.
    """

    num_maps = 2

    def __init__(
        self, embed_dims: int = 256, num_heads: int = 8, num_points: int = 4, dropout: float = 0.1
    ) -> None:
        super().__init__()
        check_heads(embed_dims, num_heads)
        self.num_heads = num_heads
        self.num_points = num_points
        total = num_heads * self.num_maps * num_points
        self.sampling_offsets = nn.Linear(2 * embed_dims, 2 * total)
        self.attention_weights = nn.Linear(2 * embed_dims, total)
        self.value_proj = nn.Linear(embed_dims, embed_dims)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)

    def init_weights(self) -> None:
        offsets = circle_offsets(self.num_heads, self.num_points)
        init_deformable(self, offsets[:, None].expand(-1, self.num_maps, -1, -1))
        xavier_init(self.output_proj, distribution='uniform')

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        previous: Tensor,
        current: Tensor,
        reference_points: Tensor,
        bev_shape: Tuple[int, int],
    ) -> Tensor:
        """The queries and what they saw.

        Args:
            query: Shape (B, Q, C).
            query_pos: Position embedding, shape (B, Q, C).
            previous: Previous BEV, turned into the current frame, or what
                stands in for it, shape (B, Q, C).
            current: Current map, shape (B, Q, C).
            reference_points: Places (x, y) of the queries in both maps as
                fractions, shape (B, Q, 2).
            bev_shape: H and W.
        """
        batch, queries, channels = query.shape
        maps = torch.stack((previous, current), 1).flatten(0, 1)
        value = self.value_proj(maps).unflatten(-1, (self.num_heads, -1))

        seen_by = torch.cat((previous, query + query_pos), -1)
        heads = (batch, queries, self.num_heads, self.num_maps)
        offsets = self.sampling_offsets(seen_by).view(*heads, 1, self.num_points, 2)
        weights = self.attention_weights(seen_by).view(*heads, 1, self.num_points).softmax(-1)
        # the map goes to the batch
        offsets, weights = (x.movedim(3, 1).flatten(0, 1) for x in (offsets, weights))
        size = offsets.new_tensor(bev_shape[::-1])
        places = reference_points.repeat_interleave(self.num_maps, 0)
        locations = places[:, :, None, None, None] + offsets / size

        out = deformable_attention(value, [bev_shape], locations, weights)
        out = out.view(batch, self.num_maps, queries, channels).mean(1)
        return query + self.dropout(self.output_proj(out))


class MSDeformableAttention3D(BaseModule):
    """Queries look around the points of their pillar in an image's levels.

    Args:
        embed_dims: Channels C.
        num_heads: Heads M.
        num_levels: Levels L.
        num_points: Points P that a head samples in a level; point p is around
            pillar point p modulo D.

    Raises:
        ValueError: If heads do not share out the channels.
    """

    def __init__(
        self, embed_dims: int = 256, num_heads: int = 8, num_levels: int = 4, num_points: int = 8
    ) -> None:
        super().__init__()
        check_heads(embed_dims, num_heads)
        self.num_heads = num_heads
        self.num_levels = num_levels
        self.num_points = num_points
        total = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(embed_dims, 2 * total)
        self.attention_weights = nn.Linear(embed_dims, total)
        self.value_proj = nn.Linear(embed_dims, embed_dims)

    def init_weights(self) -> None:
        offsets = circle_offsets(self.num_heads, self.num_points)
        init_deformable(self, offsets[:, None].expand(-1, self.num_levels, -1, -1))

    def forward(
        self, query: Tensor, value: Tensor, pillars: Tensor, level_shapes: LevelShapes
    ) -> Tensor:
        """What the queries saw, shape (B, Q, C).

        Args:
            query: Shape (B, Q, C).
            value: Features of all levels, shape (B, S, C).
            pillars: Pillar points as fractions, shape (B, Q, D, 2).
            level_shapes: Height and width of the L levels.
        """
        value = self.value_proj(value).unflatten(-1, (self.num_heads, -1))
        heads = (*query.shape[:2], self.num_heads)
        offsets = self.sampling_offsets(query).view(
            *heads, self.num_levels, -1, pillars.shape[2], 2
        )
        weights = self.attention_weights(query).view(*heads, -1).softmax(-1)
        weights = weights.unflatten(-1, (self.num_levels, self.num_points))
        sizes = offsets.new_tensor([shape[::-1] for shape in level_shapes])
        locations = (pillars[:, :, None, None, None] + offsets / sizes[:, None, None]).flatten(4, 5)
        return deformable_attention(value, level_shapes, locations, weights)


class SpatialCrossAttention(BaseModule):
    """BEV queries look at the cameras that see their pillar.

    Args:
        embed_dims: Channels C.
        dropout: Of the output.
        **kwargs: Arguments of ``MSDeformableAttention3D``.

    BEVFormer, arXiv 2203.17270, section 3.3; CVPR2023-Occ @4781df9, with the
    cameras of each sample where published code takes those of the first.
    """

    def __init__(self, embed_dims: int = 256, dropout: float = 0.1, **kwargs) -> None:
        super().__init__()
        self.deformable_attention = MSDeformableAttention3D(embed_dims, **kwargs)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)

    def init_weights(self) -> None:
        super().init_weights()
        xavier_init(self.output_proj, distribution='uniform')

    def forward(
        self, query: Tensor, features: Tensor, level_shapes: LevelShapes, seen: SeenQueries
    ) -> Tensor:
        """The queries and the mean of what their cameras saw.

        Args:
            query: Shape (B, Q, C).
            features: Features of all cameras and levels, (B, N, S, C).
            level_shapes: Height and width of the levels.
            seen: Which queries each camera sees.
        """
        batch, queries, channels = query.shape
        sample = torch.arange(batch, device=query.device)[:, None, None]
        found = self.deformable_attention(
            query[sample, seen.index].flatten(0, 1),
            features.flatten(0, 1),
            seen.points.flatten(0, 1),
            level_shapes,
        )
        # Those that fill a list up add nothing to the queries that they name.
        found = found.view(*seen.index.shape, channels) * seen.valid[..., None]
        place = (sample * queries + seen.index).flatten()
        total = found.new_zeros(batch * queries, channels).index_add(0, place, found.flatten(0, 2))
        mean = total.view_as(query) / seen.cameras.clamp(min=1)[..., None]
        return query + self.dropout(self.output_proj(mean))
