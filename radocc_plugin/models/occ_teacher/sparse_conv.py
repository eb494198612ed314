"""Sparse 3D convolution in plain torch: exact, with gradients, anywhere.

B batch, V active cells, K cells of a kernel, Z Y X grid.
"""

import itertools
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
            centre = [size // 2 for size in kernel_size]
            cells, pairs = self.cells(), []
            for offset in _kernel_cells(kernel_size):
                shift = [k - c for k, c in zip(offset, centre)]
                keys, inside = _moved(cells, shift, self.shape)
                row = torch.searchsorted(self.keys, keys)
                inside &= row < len(self.keys)
                output = inside.nonzero()[:, 0]
                output = output[self.keys[row[output]] == keys[output]]
                pairs.append((row[output], output))
            self._submanifold[kernel_size] = pairs
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
            cells = self.cells()
            steps = cells.new_tensor(stride)
            inputs, keys = [], []
            for offset in _kernel_cells(kernel_size):
                shifted = cells[:, 1:] + cells.new_tensor([p - k for k, p in zip(offset, padding)])
                meets = (shifted % steps == 0).all(1)
                outputs = torch.cat(
                    [cells[:, :1], torch.div(shifted, steps, rounding_mode='floor')], 1
                )
                key, inside = _moved(outputs, (0, 0, 0), shape)
                row = (meets & inside).nonzero()[:, 0]
                inputs.append(row)
                keys.append(key[row])
            active, outputs = torch.cat(keys).unique(return_inverse=True)
            outputs = outputs.split([len(row) for row in inputs])
            self._strided[kind] = (
                ActiveCells(active, shape, self.batch_size),
                list(zip(inputs, outputs)),
            )
        return self._strided[kind]


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


def _kernel_cells(kernel_size: Sequence[int]):
    return itertools.product(*map(range, kernel_size))


def _moved(cells: Tensor, shift: Sequence[int], shape: Sequence[int]) -> Tuple[Tensor, Tensor]:
    """Keys of cells (V, 4) moved by a shift, and which stay in the grid."""
    batch, z, y, x = cells.unbind(1)
    z, y, x = z + shift[0], y + shift[1], x + shift[2]
    inside = (z >= 0) & (z < shape[0]) & (y >= 0) & (y < shape[1]) & (x >= 0) & (x < shape[2])
    return ((batch * shape[0] + z) * shape[1] + y) * shape[2] + x, inside
