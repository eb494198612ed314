"""Sparse 3D convolution in plain torch: exact, with gradients, anywhere.

B batch, V active cells, K cells of a kernel, Z Y X grid.
"""

from typing import Dict, List, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Rows of the input and of the output that one cell of the kernel connects.
Pairs = List[Tuple[Tensor, Tensor]]


class ActiveCells:
    """The occupied cells of B grids, and what convolutions connect them.

    Connections are found once for each kind of convolution and kept.

    Args:
        keys: Row-major flat index (batch, z, y, x) of each cell, ascending
            and unique, int64, (V,).
        shape: Cells (Z, Y, X) of one grid.
        batch_size: B.
    """

    def __init__(self, keys: Tensor, shape: Sequence[int], batch_size: int) -> None:
        self.keys = keys
        self.shape = tuple(shape)
        self.batch_size = batch_size
        self._submanifold: Dict[tuple, Pairs] = {}
        self._strided: Dict[tuple, Tuple['ActiveCells', Pairs]] = {}

    def cells(self) -> Tensor:
        """Batch index, z, y and x of each cell, (V, 4), int64."""
        depth, height, width = self.shape
        row = self.keys // width
        layer = row // height
        return torch.stack([layer // depth, layer % depth, row % height, self.keys % width], 1)

    def submanifold(self, kernel_size: Tuple[int, int, int]) -> Pairs:
        """Pairs of a convolution whose output has the same active cells.

        Output cell ``o`` and kernel cell ``k`` read cell ``o + k - K // 2``.
        """
        if kernel_size not in self._submanifold:
            batch, *place = self.cells().unbind(1)
            moved = [
                x + (k - size // 2)[:, None]
                for x, k, size in zip(place, self._kernel(kernel_size), kernel_size)
            ]
            keys, inside = _keys(batch, moved, self.shape)
            row = torch.searchsorted(self.keys, keys).clamp_max(max(len(self.keys) - 1, 0))
            inside &= self.keys[row] == keys
            self._submanifold[kernel_size] = _pairs(inside, row)
        return self._submanifold[kernel_size]

    def strided(
        self,
        kernel_size: Tuple[int, int, int],
        stride: Tuple[int, int, int],
        padding: Tuple[int, int, int],
    ) -> Tuple['ActiveCells', Pairs]:
        """Active output cells and pairs of an ordinary convolution.

        Output cell ``o`` and kernel cell ``k`` read cell ``o * stride -
        padding + k``; a cell of the output is active if any that it reads is.
        """
        kind = (kernel_size, stride, padding)
        if kind not in self._strided:
            shape = tuple(
                (n + 2 * p - k) // s + 1
                for n, k, s, p in zip(self.shape, kernel_size, stride, padding)
            )
            batch, *place = self.cells().unbind(1)
            read = [
                x + (p - k)[:, None] for x, k, p in zip(place, self._kernel(kernel_size), padding)
            ]
            outputs = [torch.div(x, step, rounding_mode='floor') for x, step in zip(read, stride)]
            keys, inside = _keys(batch, outputs, shape)
            for x, output, step in zip(read, outputs, stride):
                inside &= x == output * step
            pairs = _pairs(inside, keys)
            # a cell of the kernel at a time, as ``_pairs`` has them
            active, index = torch.cat([key for key, _ in pairs]).unique(return_inverse=True)
            outputs = index.split([len(key) for key, _ in pairs])
            self._strided[kind] = (
                ActiveCells(active, shape, self.batch_size),
                [(cell, output) for (_, cell), output in zip(pairs, outputs)],
            )
        return self._strided[kind]

    def _kernel(self, kernel_size: Sequence[int]) -> List[Tensor]:
        """z, y and x of the K cells of a kernel in row-major order, (K,) each."""
        axes = [torch.arange(size, device=self.keys.device) for size in kernel_size]
        return [axis.flatten() for axis in torch.meshgrid(*axes, indexing='ij')]


class SparseVolume(NamedTuple):
    """Features (V, C) of the active cells of B volumes."""

    features: Tensor
    active: ActiveCells

    def dense(self) -> Tensor:
        """The volume (B, C, Z, Y, X), zero in inactive cells."""
        shape = (self.active.batch_size, *self.active.shape)
        rows = self.features.new_zeros(torch.Size(shape).numel(), self.features.shape[1])
        rows = rows.index_copy(0, self.active.keys, self.features)
        return rows.view(*shape, -1).permute(0, 4, 1, 2, 3).contiguous()


def convolve(features: Tensor, weight: Tensor, pairs: Pairs, num_outputs: int) -> Tensor:
    """Sum over the kernel of connected input features times its matrix.

    Args:
        features: Input features, shape (V, C_in).
        weight: One matrix for each cell of the kernel in row-major order
            (z, y, x), shape (K, C_in, C_out).
        pairs: See ``ActiveCells``.
        num_outputs: Active cells of the output.

    Returns:
        Shape (num_outputs, C_out); the same in every run, also on CUDA.

    Graham et al., 3D Semantic Segmentation with Submanifold Sparse
    Convolutional Networks, CVPR 2018.
    """
    return _Convolve.apply(features, weight, pairs, num_outputs)


class _Convolve(torch.autograd.Function):
    """Keeps no gathered rows for the backward.

    One cell of the kernel meets each row once, of the input and of the
    output: rows are written in turn, never added to by several at once.
    """

    @staticmethod
    def forward(ctx, features, weight, pairs, num_outputs):
        ctx.save_for_backward(features, weight)
        ctx.pairs = pairs
        output = features.new_zeros(num_outputs, weight.shape[-1])
        for matrix, (source, target) in zip(weight, pairs):
            _add_product(output, target, features.index_select(0, source), matrix)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        features, weight = ctx.saved_tensors
        for_features = torch.zeros_like(features)
        for_weight = torch.zeros_like(weight)
        for matrix, out, (source, target) in zip(weight, for_weight, ctx.pairs):
            rows = gradient.index_select(0, target)
            _add_product(for_features, source, rows, matrix.T)
            torch.mm(features.index_select(0, source).T, rows, out=out)
        return for_features, for_weight, None, None


def _add_product(output: Tensor, rows: Tensor, left: Tensor, right: Tensor) -> None:
    """Adds ``left @ right`` to distinct rows of ``output`` in place."""
    output.index_copy_(0, rows, torch.addmm(output.index_select(0, rows), left, right))


def _keys(batch: Tensor, place: Sequence[Tensor], shape: Sequence[int]) -> Tuple[Tensor, Tensor]:
    """Keys of places (z, y, x), (K, V) each, and which lie in the grid."""
    key, inside = batch, torch.ones_like(place[0], dtype=torch.bool)
    for x, size in zip(place, shape):
        key = key * size + x
        inside &= (x >= 0) & (x < size)
    return key, inside


def _pairs(connected: Tensor, value: Tensor) -> Pairs:
    """For each cell of the kernel the values (K, V) of the cells that it
    connects, and these cells. The host waits twice: for all of them, and for
    their numbers."""
    kernel, cell = connected.nonzero(as_tuple=True)
    counts = connected.sum(1).tolist()
    return list(zip(value[kernel, cell].split(counts), cell.split(counts)))
