"""Depth-weighted sum pooling of image features into voxels."""

import torch
import torch.nn.functional as F
from torch import Tensor


def bev_pool(depth: Tensor, features: Tensor, point_of: Tensor, offsets: Tensor) -> Tensor:
    """Sums ``depth * feature`` of all frustum points that fall into a voxel.

    Exact and differentiable in ``depth`` and ``features``. The pooling is an
    embedding bag: a voxel is a bag of image cells weighted by depth, so the
    (kept points, C) products are never stored, and the order of summation is
    fixed on CPU and CUDA alike.

    Args:
        depth: Depth probabilities, shape (cameras, D, H, W).
        features: Image features, shape (cameras, C, H, W).
        point_of: Flat index into ``depth`` of each kept point, voxel by
            voxel, shape (K,).
        offsets: First kept point of each of the batch's V voxels, ascending,
            shape (V,); voxel v owns ``offsets[v]:offsets[v + 1]``.

    Returns:
        Voxel features, shape (V, C), float32 at least; zero where no point
        falls.

    The public ``bev_pool_v2`` (BEVDet dev2.1), which exists for CUDA only.
    """
    cameras, bins, height, width = depth.shape
    dtype = torch.promote_types(features.dtype, torch.float32)
    cells = features.permute(0, 2, 3, 1).flatten(0, 2).to(dtype)
    weights = depth.flatten().to(dtype)[point_of]
    area = height * width
    cell_of = point_of // (bins * area) * area + point_of % area
    if torch.onnx.is_in_onnx_export():
        # ONNX has no bags: the products are stored and scattered.
        ends = torch.cat([offsets[1:], offsets.new_tensor([len(point_of)])])
        voxel_of = torch.repeat_interleave(
            torch.arange(len(offsets), device=offsets.device), ends - offsets
        )
        products = cells[cell_of] * weights[:, None]
        pooled = cells.new_zeros(len(offsets), cells.shape[1])
        return pooled.scatter_add(0, voxel_of[:, None].expand_as(products), products)
    return F.embedding_bag(cell_of, cells, offsets, mode='sum', per_sample_weights=weights)
