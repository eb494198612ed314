"""Sparse-times-dense products over packed crossings, without (M, C) arrays.

R rays, M crossings (packed ray by ray), V voxels, C channels.
"""

import warnings
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def bag(weights: Tensor, values: Tensor, index: Tensor, offsets: Tensor) -> Tensor:
    """Weighted sum of rows of ``values`` (K, C) for each of N bags of
    indices: weights and indices (M,), offsets (N + 1,) -> (N, C)."""
    if not len(index) or values.shape[1] == 0:
        # which embedding_bag refuses on some threads
        return values.new_zeros(len(offsets) - 1, values.shape[1])
    return F.embedding_bag(
        index,
        values.detach(),  # or it prepares for a gradient of its own
        offsets,
        mode='sum',
        per_sample_weights=weights,
        include_last_offset=True,
    )


def sampled_product(rows: Tensor, values: Tensor, index: Tensor, offsets: Tensor) -> Tensor:
    """``row . values[index]`` of each index of each row's bag: rows (N, C),
    values (K, C), indices (M,), offsets (N + 1,) -> (M,)."""
    if not len(index) or not rows.shape[1]:
        return rows.new_zeros(len(index))
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Sparse CSR tensor support')
        pattern = torch.sparse_csr_tensor(
            offsets,
            index,
            rows.new_zeros(len(index)),
            size=(len(rows), len(values)),
            check_invariants=False,
        )
    return torch.sparse.sampled_addmm(
        pattern, rows.contiguous(), values.t(), beta=0.0, out=pattern
    ).values()


class ByVoxel(NamedTuple):
    """Crossings voxel by voxel: where each one is in that order and, in it,
    the ray of each, (M,); the first one of each voxel, (V + 1,); int32."""

    place: Tensor
    ray: Tensor
    offsets: Tensor


def by_voxel(voxel: Tensor, ray: Tensor, num_voxels: int) -> ByVoxel:
    """Of crossings ray by ray: their voxel, int64, and ray, int32, (M,)."""
    order = _stable_order(voxel)
    ray = ray.index_select(0, order)
    place = torch.empty_like(ray).index_copy_(
        0, order, torch.arange(len(voxel), dtype=torch.int32, device=voxel.device)
    )
    count = torch.bincount(voxel, minlength=num_voxels)
    return ByVoxel(place, ray, F.pad(count.cumsum(0), (1, 0)).int())


def _stable_order(index: Tensor) -> Tensor:
    """``index.argsort(stable=True)``, int64; on a CPU by numpy, whose plain
    sort is some eight times faster, of keys that hold the place too."""
    if index.device.type != 'cpu':
        return index.argsort(stable=True)
    key = torch.arange(len(index)).add_(index, alpha=2**32)
    key.numpy().sort()
    return key.bitwise_and_(2**32 - 1)
