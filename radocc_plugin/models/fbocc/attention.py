"""Deformable attention whose samples count as much as their depth is likely.

B batch, N cameras, Q queries, V queries that a camera sees, M heads, A anchors
a pillar, P samples a head, C channels, D depth bins, h w feature map.
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

from radocc_plugin.models.fbocc.anchors import Anchors


def deformable_attention(value: Tensor, locations: Tensor,
                         weights: Tensor) -> Tensor:
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
            value.contiguous(), shapes, shapes.new_zeros(1),
            locations.contiguous(), weights.contiguous(), 64)
    return multi_scale_deformable_attn_pytorch(value, shapes, locations,
                                               weights)


class _DepthAwareSampling(nn.Module):
    """One camera's deformable attention; see ``DepthAwareCrossAttention``."""

    def __init__(self, embed_dims: int, num_heads: int,
                 num_points: int) -> None:
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
            self.sampling_offsets.bias.copy_(
                (ways[:, None] * steps[:, None]).flatten())

    def forward(self, query: Tensor, context: Tensor, positions: Tensor,
                likelihood: Tensor) -> Tensor:
        """Features (V, C) of the queries that a camera sees.

        Args:
            query: With the learned position, shape (V, C).
            context: Image features, shape (C, h, w).
            positions: Of the anchors, shape (V, A, 2).
            likelihood: Of their depths, shape (V, A).
        """
        heads, anchors = self.num_heads, positions.shape[1]
        value = self.value_proj(context.permute(1, 2, 0))
        # sample p of a head belongs to anchor p mod A
        offsets = self.sampling_offsets(query).view(
            len(query), heads, -1, anchors, 2)
        offsets = offsets / offsets.new_tensor(context.shape[:0:-1])
        weights = self.attention_weights(query).view(len(query), heads, -1)
        weights = weights.softmax(-1).unflatten(-1, (-1, anchors))
        # as published, what is left does not sum to one again
        weights = weights * likelihood[:, None, None]
        return deformable_attention(
            value.unflatten(-1, (heads, -1))[None],
            (positions[:, None, None] + offsets).flatten(2, 3)[None],
            weights.flatten(2)[None])[0]


class DepthAwareCrossAttention(nn.Module):
    """From the cells of the bird's-eye view to the images that see them.

    A cell samples around the anchors of its pillar in every camera that sees
    one of them. A sample counts by its attention weight times the predicted
    probability that the image's surface is at its anchor's depth. Cameras are
    averaged. Only the queries that a camera sees are computed, camera by
    camera, so memory follows what is seen.

    Args:
        embed_dims: Channels C of queries and context.
        num_heads: Heads M.
        num_points: Samples P of a head, a multiple of the anchors.

    FB-BEV, arXiv 2308.02236, section 3.3.
    """

    def __init__(self, embed_dims: int, num_heads: int,
                 num_points: int) -> None:
        super().__init__()
        self.deformable_attention = _DepthAwareSampling(
            embed_dims, num_heads, num_points)
        self.output_proj = nn.Linear(embed_dims, embed_dims)

    def init_weights(self) -> None:
        """Initialises the projections."""
        self.deformable_attention.init_weights()
        xavier_init(self.output_proj, distribution='uniform')

    def forward(self, query: Tensor, query_pos: Tensor, context: Tensor,
                depth: Tensor, anchors: Anchors) -> Tensor:
        """The queries with what the images add to them, shape (B, Q, C).

        Args:
            query: Shape (B, Q, C).
            query_pos: Their learned positions, same shape.
            context: Image features, shape (B, N, C, h, w).
            depth: Depth distributions, shape (B, N, D, h, w).
            anchors: Of the pillars in the cameras.
        """
        visible = anchors.seen.any(-1)
        cameras = visible.sum(1).clamp(min=1)
        positioned = query + query_pos
        total = torch.zeros_like(query)
        for b, n in visible.any(-1).nonzero().tolist():
            index = visible[b, n].nonzero().squeeze(1)
            positions = anchors.positions[b, n, index]
            likelihood = depth_likelihood(depth[b, n], positions,
                                          anchors.depth_bins[b, n, index])
            features = self.deformable_attention(
                positioned[b, index], context[b, n], positions, likelihood)
            total[b] = total[b].index_add(0, index, features)
        if not visible.any():
            # DDP waits for a gradient of every parameter
            total = total + 0 * sum(
                parameter.sum()
                for parameter in self.deformable_attention.parameters())
        return self.output_proj(total / cameras[..., None]) + query


def depth_likelihood(depth: Tensor, positions: Tensor,
                     bins: Tensor) -> Tensor:
    """Predicted probability of a depth bin at image positions.

    Args:
        depth: Depth distributions of a camera, shape (D, h, w).
        positions: (u, v) on the image, which spans [0, 1], shape (V, A, 2).
        bins: Depth bins, shape (V, A).

    Returns:
        Bilinear in the image, zero outside, shape (V, A).
    """
    grid = 2 * positions[None] - 1
    sampled = F.grid_sample(
        depth[None], grid, align_corners=False)  # (1, D, V, A)
    return sampled[0].gather(0, bins[None])[0]
