"""Multi-scale deformable attention on any device, lean in memory.

B batch, S cells of all levels, Q queries, M heads, L levels, P points,
C channels of a head.
"""

from typing import Sequence, Tuple

import torch
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Sampled values that the torch form holds at once: 32 MiB in float32.
MAX_SAMPLED = 2**23


def deformable_attention(
    value: Tensor,
    spatial_shapes: Sequence[Tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    *,
    max_sampled: int = MAX_SAMPLED,
) -> Tensor:
    """Weighted sum of values that are sampled bilinearly around each query.

    On CUDA it is mmcv's kernel. Elsewhere it is mmcv's torch form, which
    alone would keep every sampled value for the backward pass: here it runs
    over some heads of some batch elements at a time, each computed again in
    the backward pass.

    Args:
        value: Levels one after the other, rows of a level one after the
            other, shape (B, S, M, C).
        spatial_shapes: Height and width of each level; S cells together.
        sampling_locations: Where to sample, (x, y) as fractions of the width
            and height of a level, pixel centres at (i + 0.5) / n; 0 outside;
            shape (B, Q, M, L, P, 2).
        attention_weights: Shape (B, Q, M, L, P).
        max_sampled: Sampled numbers that the torch form holds at once, at
            least one head's.

    Returns:
        Heads side by side, shape (B, Q, M * C), at least float32.

    Raises:
        ValueError: If shapes disagree.

    Deformable DETR, arXiv 2010.04159, equation 3.
    """
    _check_shapes(value, spatial_shapes, sampling_locations, attention_weights)
    dtype = value.dtype if value.dtype == torch.double else torch.float32
    with torch.autocast(value.device.type, enabled=False):
        value, sampling_locations, attention_weights = (
            x.to(dtype) for x in (value, sampling_locations, attention_weights)
        )
        if value.is_cuda:
            return _on_cuda(value, spatial_shapes, sampling_locations, attention_weights)
        return _in_chunks(value, spatial_shapes, sampling_locations, attention_weights, max_sampled)


def _check_shapes(value, spatial_shapes, locations, weights) -> None:
    cells = sum(height * width for height, width in spatial_shapes)
    if value.dim() != 4 or value.shape[1] != cells:
        raise ValueError(
            f'value takes shape (B, {cells}, M, C) for levels of '
            f'{list(spatial_shapes)} cells, got '
            f'{tuple(value.shape)}'
        )
    batch, _, heads, _ = value.shape
    lead = (batch, locations.shape[1], heads, len(spatial_shapes))
    if locations.dim() != 6 or locations.shape[:4] != lead:
        raise ValueError(
            'sampling_locations take shape (B, Q, M, L, P, 2), '
            f'here {(*lead, "P", 2)}, got '
            f'{tuple(locations.shape)}'
        )
    if weights.shape != locations.shape[:-1]:
        raise ValueError(
            'attention_weights take shape '
            f'{tuple(locations.shape[:-1])} as '
            f'sampling_locations, got {tuple(weights.shape)}'
        )


def _on_cuda(value, spatial_shapes, locations, weights) -> Tensor:
    shapes = torch.tensor(spatial_shapes, device=value.device)
    sizes = shapes.prod(1)
    # A step of the whole batch: the kernel asks that it divides the batch.
    return MultiScaleDeformableAttnFunction.apply(
        value.contiguous(),
        shapes,
        sizes.cumsum(0) - sizes,
        locations.contiguous(),
        weights.contiguous(),
        len(value),
    )


def _in_chunks(value, spatial_shapes, locations, weights, max_sampled: int) -> Tensor:
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    # each head of each batch element is a row of its own
    rows = [x.transpose(1, 2).flatten(0, 1).unsqueeze(2) for x in (value, locations, weights)]
    sampled = channels * weights[0, :, 0].numel()
    at_once = max(1, max_sampled // max(1, sampled))
    chunks = []
    for value, locations, weights in zip(*(x.split(at_once) for x in rows)):
        args = value, spatial_shapes, locations, weights
        if torch.is_grad_enabled() and any(x.requires_grad for x in (value, locations, weights)):
            chunks.append(
                checkpoint(
                    multi_scale_deformable_attn_pytorch,
                    *args,
                    use_reentrant=False,
                    preserve_rng_state=False,
                )
            )
        else:
            chunks.append(multi_scale_deformable_attn_pytorch(*args))
    out = torch.cat(chunks).view(batch, heads, queries, channels)
    return out.transpose(1, 2).flatten(2)
