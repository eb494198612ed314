"""The LiDAR branch: occupied voxels to a BEV map."""

from typing import Sequence

import torch
from torch import Tensor

from radocc_plugin.models.occ_teacher.sparse_conv import SparseVolume
from radocc_plugin.models.occ_teacher.sparse_encoder import NORM_CFG, SparseStages
from radocc_plugin.registry import MODELS


@MODELS.register_module()
class SparseBEVEncoder(SparseStages):
    """``mmdet3d.SparseEncoder`` with its axes in the order x, y, z.

    Weights have the names and, without spconv 2, the layout of the published
    files, (kx, ky, kz, in, out). mmdet3d's own encoder takes them as z, y, x
    without an error.

    Args:
        in_channels: Features of a voxel.
        output_channels: Channels of each of the layers in z that remain.
        encoder_channels: See ``SparseStages``.
        encoder_paddings: Likewise; a number, or one for x, y, z each.
        **kwargs: ``base_channels`` and ``backend`` of ``SparseStages``.

    AlphaPlusTT/DAOcc 6846432b, ``SparseEncoder``.
    """

    def __init__(
        self,
        in_channels: int = 5,
        output_channels: int = 128,
        encoder_channels: Sequence[Sequence[int]] = (
            (16, 16, 32),
            (32, 32, 64),
            (64, 64, 128),
            (128, 128),
        ),
        encoder_paddings: Sequence[Sequence] = ((0, 0, 1), (0, 0, 1), (0, 0, (1, 1, 0)), (0, 0)),
        **kwargs,
    ) -> None:
        super().__init__(in_channels, encoder_channels, encoder_paddings, **kwargs)
        from mmdet3d.models.layers import make_sparse_convmodule

        self.conv_out = make_sparse_convmodule(
            encoder_channels[-1][-1],
            output_channels,
            kernel_size=(1, 1, 3),
            stride=(1, 1, 2),
            padding=0,
            indice_key='spconv_down2',
            conv_type='SparseConv3d',
            norm_cfg=dict(type='BN1d', **NORM_CFG),
        )

    def forward(self, voxels: SparseVolume) -> Tensor:
        """BEV map of occupied voxels.

        Args:
            voxels: Features (V, in_channels) in a grid (X, Y, Z).

        Returns:
            Shape (B, output_channels * Z', X', Y'), float32, zero where no
            voxel reaches; channel ``c * Z' + z``.

        Raises:
            ValueError: If batch norm is to train on fewer than two voxels.
        """
        volume = self.encode(voxels, self.conv_out).dense()
        return torch.flatten(volume.permute(0, 1, 4, 2, 3), 1, 2)
