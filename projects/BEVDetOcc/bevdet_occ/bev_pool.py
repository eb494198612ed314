"""Depth-weighted sum pooling of image features into voxels."""
import torch
import torch.nn.functional as F
from torch import Tensor


def bev_pool(depth: Tensor, features: Tensor, point_of: Tensor,
             voxel_of: Tensor, num_voxels: int) -> Tensor:
    """Sums ``depth * feature`` of all frustum points that fall into a voxel.

    Exact and differentiable in ``depth`` and ``features``. The pooling is an
    embedding bag: a voxel is a bag of image cells weighted by depth, so the
    (kept points, C) products are never stored, and the order of summation is
    fixed on CPU and CUDA alike.

    Args:
        depth: Depth probabilities, shape (cameras, D, H, W).
        features: Image features, shape (cameras, C, H, W).
        point_of: Flat index into ``depth`` of each kept point, shape (K,).
        voxel_of: Flat voxel index of each kept point, ascending, shape (K,).
        num_voxels: Number of voxels V of the whole batch.

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
    first_of_voxel = torch.searchsorted(
        voxel_of, torch.arange(num_voxels, device=voxel_of.device))
    return F.embedding_bag(
        cell_of,
        cells,
        first_of_voxel,
        mode='sum',
        per_sample_weights=weights)
