"""Deformable attention whose samples count as much as their depth is likely.

B batch, N cameras, K = B * N images, Q queries, V queries that a camera sees,
M heads, A anchors a pillar, P samples a head, C channels, D depth bins, h w
feature map.
"""

import math

import torch
import torch.nn.functional as F
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from mmengine.model import constant_init, xavier_init
from torch import Tensor, nn

from radocc_plugin.models.bevformer.pillars import list_seen_queries
from radocc_plugin.models.fbocc.anchors import Anchors


def deformable_attention(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of bilinear samples of one feature map.

    mmcv's operator on CUDA, its pure PyTorch form elsewhere.

    Args:
        value: Shape (B, h, w, M, C / M).
        locations: (u, v) on the map, which spans [0, 1]; zeros outside; shape
            (B, Q, M, P, 2).
        weights: Shape (B, Q, M, P).

    Returns:
        Shape (B, Q, C).
    """
    shapes = torch.tensor([value.shape[1:3]], device=value.device)
    value = value.flatten(1, 2)
    locations, weights = locations[:, :, :, None], weights[:, :, :, None]
    if value.is_cuda:
        return MultiScaleDeformableAttnFunction.apply(
            value.contiguous(),
            shapes,
            shapes.new_zeros(1),
            locations.contiguous(),
            weights.contiguous(),
            len(value),
        )
    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)


class _DepthAwareSampling(nn.Module):
    """Deformable attention of images; see ``DepthAwareCrossAttention``."""

    def __init__(self, embed_dims: int, num_heads: int, num_points: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_points = num_points
        samples = num_heads * num_points
        self.sampling_offsets = nn.Linear(embed_dims, samples * 2)
        self.attention_weights = nn.Linear(embed_dims, samples)
        self.value_proj = nn.Linear(embed_dims, embed_dims)

    def init_weights(self) -> None:
        """Every head looks its own way, sample i by i + 1 cells."""
        constant_init(self.sampling_offsets, 0)
        constant_init(self.attention_weights, 0)
        xavier_init(self.value_proj, distribution='uniform')
        angles = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        ways = torch.stack([angles.cos(), angles.sin()], dim=-1)
        ways = ways / ways.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.num_points + 1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((ways[:, None] * steps[:, None]).flatten())

    def forward(
        self, query: Tensor, context: Tensor, positions: Tensor, likelihood: Tensor
    ) -> Tensor:
        """Features (K, V, C) of the queries that each camera sees.

        Args:
            query: With the learned position, shape (K, V, C).
            context: Image features, shape (K, C, h, w).
            positions: Of the anchors, shape (K, V, A, 2).
            likelihood: Of their depths, shape (K, V, A).
        """
        heads, anchors = self.num_heads, positions.shape[2]
        value = self.value_proj(context.permute(0, 2, 3, 1))
        # sample p of a head belongs to anchor p mod A
        offsets = self.sampling_offsets(query).view(*query.shape[:2], heads, -1, anchors, 2)
        height, width = context.shape[-2:]
        offsets = torch.stack([offsets[..., 0] / width, offsets[..., 1] / height], dim=-1)
        weights = self.attention_weights(query).unflatten(-1, (heads, -1))
        weights = weights.softmax(-1).unflatten(-1, (-1, anchors))
        # as published, what is left does not sum to one again
        weights = weights * likelihood[:, :, None, None]
        return deformable_attention(
            value.unflatten(-1, (heads, -1)),
            (positions[:, :, None, None] + offsets).flatten(3, 4),
            weights.flatten(3),
        )


class DepthAwareCrossAttention(nn.Module):
    """From the cells of the bird's-eye view to the images that see them.

    A cell samples around the anchors of its pillar in every camera that sees
    one of them. A sample counts by its attention weight times the predicted
    probability that the image's surface is at its anchor's depth. Cameras are
    averaged. As many queries of each camera are computed as the camera that
    sees most of them sees.

    Args:
        embed_dims: Channels C of queries and context.
        num_heads: Heads M.
        num_points: Samples P of a head, a multiple of the anchors.

    FB-BEV, arXiv 2308.02236, section 3.3.
    """

    def __init__(self, embed_dims: int, num_heads: int, num_points: int) -> None:
        super().__init__()
        self.deformable_attention = _DepthAwareSampling(embed_dims, num_heads, num_points)
        self.output_proj = nn.Linear(embed_dims, embed_dims)

    def init_weights(self) -> None:
        """Initialises the projections."""
        self.deformable_attention.init_weights()
        xavier_init(self.output_proj, distribution='uniform')

    def forward(
        self, query: Tensor, query_pos: Tensor, context: Tensor, depth: Tensor, anchors: Anchors
    ) -> Tensor:
        """The queries with what the images add to them, shape (B, Q, C).

        Args:
            query: Shape (B, Q, C).
            query_pos: Their learned positions, same shape.
            context: Image features, shape (B, N, C, h, w).
            depth: Depth distributions, shape (B, N, D, h, w).
            anchors: Of the pillars in the cameras.
        """
        batch, queries, _ = query.shape
        seen = list_seen_queries(anchors.positions, anchors.seen)
        bins = anchors.depth_bins.gather(2, seen.index[..., None].expand(*seen.points.shape[:-1]))
        sample = torch.arange(batch, device=query.device)[:, None, None]
        positions = seen.points.flatten(0, 1)
        features = self.deformable_attention(
            (query + query_pos)[sample, seen.index].flatten(0, 1),
            context.flatten(0, 1),
            positions,
            depth_likelihood(depth.flatten(0, 1), positions, bins.flatten(0, 1)),
        )
        # Those that fill a list up add nothing to the queries that they name.
        features = features * seen.valid.flatten(0, 1)[..., None]
        place = (sample * queries + seen.index).flatten()
        total = torch.zeros_like(query).flatten(0, 1).index_add(0, place, features.flatten(0, 1))
        mean = total.view_as(query) / seen.cameras.clamp(min=1)[..., None]
        return self.output_proj(mean) + query


def depth_likelihood(depth: Tensor, positions: Tensor, bins: Tensor) -> Tensor:
    """Predicted probability of a depth bin at image positions.

    Args:
        depth: Depth distributions of images, shape (K, D, h, w).
        positions: (u, v) on the image, which spans [0, 1], shape (K, V, A, 2).
        bins: Depth bins, shape (K, V, A).

    Returns:
        Bilinear in the image, zero outside, shape (K, V, A).
    """
    sampled = F.grid_sample(depth, 2 * positions - 1, align_corners=False)  # (K, D, V, A)
    return sampled.gather(1, bins[:, None]).squeeze(1)
