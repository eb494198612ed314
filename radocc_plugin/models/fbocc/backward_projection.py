"""Backward projection: cells of the bird's-eye view that ask the images.

B batch, N cameras, Q = Y * X cells, C channels, X Y Z grid.
"""

from typing import Sequence, Tuple

import torch
from mmcv.cnn.bricks.transformer import FFN
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.layers import LearnedPositionalEncoding
from torch import Tensor, nn

from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.models.fbocc.anchors import Anchors, pillar_anchors, project_anchors
from radocc_plugin.models.fbocc.attention import DepthAwareCrossAttention
from radocc_plugin.models.lift_splat import DepthBins, ViewGeometry


class _EncoderLayer(nn.Module):
    """Self-attention, depth-aware cross-attention and an MLP, each normed."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        self_points: int,
        cross_points: int,
        feedforward_channels: int,
    ) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(
            [
                MultiScaleDeformableAttention(
                    embed_dims,
                    num_heads,
                    num_levels=1,
                    num_points=self_points,
                    dropout=0.0,
                    batch_first=True,
                ),
                DepthAwareCrossAttention(embed_dims, num_heads, cross_points),
            ]
        )
        self.ffns = nn.ModuleList([FFN(embed_dims, feedforward_channels)])
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dims) for _ in range(3))

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        shape: Tuple[int, int],
        context: Tensor,
        depth: Tensor,
        anchors: Anchors,
    ) -> Tensor:
        """Refined queries (B, Q, C); see ``DepthAwareCrossAttention``."""
        shapes = torch.tensor([shape], device=query.device)
        query = self.attentions[0](
            query,
            query_pos=query_pos,
            reference_points=cell_centres(shape, query).expand(len(query), -1, -1, -1),
            spatial_shapes=shapes,
            level_start_index=shapes.new_zeros(1),
        )
        query = self.norms[0](query)
        query = self.attentions[1](query, query_pos, context, depth, anchors)
        query = self.norms[1](query)
        return self.norms[2](self.ffns[0](query))


class BackwardProjection(nn.Module):
    """Refines the bird's-eye view of a volume by looking back at the images.

    Queries are a learned embedding plus the mean of the volume over z.

    Args:
        grid: The voxel grid of the volume.
        depth_bins: The depth bins.
        embed_dims: Channels C of volume and context.
        anchors_z: ``(lower, upper, step)`` of the anchors of a pillar.
        num_cameras: Cameras N; only sizes an embedding that published
            checkpoints hold and no published config uses.
        num_layers: Encoder layers.
        num_heads: Heads of both attentions.
        self_points: Samples of a head of the self-attention.
        cross_points: Samples of a head of the cross-attention, a multiple of
            the anchors.
        feedforward_channels: Width of the MLP.

    Raises:
        ValueError: If ``cross_points`` does not fit ``anchors_z``.

    FB-BEV, arXiv 2308.02236; parameters are named as published.
    """

    def __init__(
        self,
        grid: VoxelGrid,
        depth_bins: DepthBins,
        embed_dims: int = 80,
        anchors_z: Sequence[float] = (-1, 5.4, 1.6),
        num_cameras: int = 6,
        num_layers: int = 1,
        num_heads: int = 8,
        self_points: int = 4,
        cross_points: int = 8,
        feedforward_channels: int = 320,
    ) -> None:
        super().__init__()
        num_anchors = round((anchors_z[1] - anchors_z[0]) / anchors_z[2])
        if cross_points % num_anchors:
            raise ValueError(
                'backward_projection.cross_points takes a '
                f'multiple of the {num_anchors} anchors of '
                f'anchors_z, got {cross_points}'
            )
        self.grid = grid
        self.depth_bins = depth_bins
        self.anchors_z = tuple(anchors_z)
        self.shape = (grid.shape[1], grid.shape[0])  # Y, X
        self.bev_embedding = nn.Embedding(self.shape[0] * self.shape[1], embed_dims)
        self.positional_encoding = LearnedPositionalEncoding(embed_dims // 2, *self.shape)
        layers = nn.ModuleList(
            _EncoderLayer(embed_dims, num_heads, self_points, cross_points, feedforward_channels)
            for _ in range(num_layers)
        )
        self.transformer = nn.ModuleDict(dict(encoder=nn.ModuleDict(dict(layers=layers))))
        self.transformer.register_parameter(
            'cams_embeds', nn.Parameter(torch.zeros(num_cameras, embed_dims), requires_grad=False)
        )

    def init_weights(self) -> None:
        """Xavier's weights, then fixed offsets for the cross-attention.

        As published, where the weights of the self-attention's offsets get
        Xavier's too and only its biases are on a circle.
        """
        for layer in self.layers:
            for attention in layer.attentions:
                attention.init_weights()
            for parameter in layer.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)
            layer.attentions[1].deformable_attention.init_weights()

    @property
    def layers(self) -> nn.ModuleList:
        return self.transformer['encoder']['layers']

    def forward(
        self,
        volume: Tensor,
        context: Tensor,
        depth: Tensor,
        geometry: ViewGeometry,
        image_size: Tuple[int, int],
    ) -> Tensor:
        """What the images add to the bird's-eye view, shape (B, C, Y, X).

        Args:
            volume: Of the forward projection, shape (B, C, Y, X, Z).
            context: Image features, shape (B * N, C, h, w).
            depth: Depth distributions, shape (B * N, D, h, w).
            geometry: Calibration of the batch.
            image_size: Height and width of the augmented images.
        """
        batch = len(volume)
        anchors = project_anchors(
            pillar_anchors(self.grid, self.anchors_z, volume.device),
            geometry,
            image_size,
            self.depth_bins,
        )
        query = self.bev_embedding.weight + volume.mean(-1).flatten(2).transpose(1, 2)
        position = (
            self.positional_encoding(volume.new_zeros(batch, *self.shape))
            .flatten(2)
            .transpose(1, 2)
        )
        context, depth = (values.unflatten(0, (batch, -1)) for values in (context, depth))
        for layer in self.layers:
            query = layer(query, position, self.shape, context, depth, anchors)
        return query.transpose(1, 2).unflatten(2, self.shape)


def cell_centres(shape: Tuple[int, int], like: Tensor) -> Tensor:
    """Centres (x, y) of a map that spans [0, 1], shape (1, Y * X, 1, 2)."""
    y, x = ((torch.arange(n).to(like) + 0.5) / n for n in shape)
    y, x = torch.meshgrid(y, x, indexing='ij')
    return torch.stack([x, y], dim=-1).view(1, -1, 1, 2)
