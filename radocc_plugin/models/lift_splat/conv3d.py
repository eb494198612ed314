"""The 3D convolution of the occupancy volumes."""

from typing import Optional

import torch.nn.functional as F
from torch import Tensor, nn

from radocc_plugin.registry import MODELS

# ATen's `use_mkldnn` (aten/src/ATen/native/Convolution.cpp, seen in torch 2.1
# to 2.13) gives a CPU convolution of batch 1 to a naive kernel when the
# product of all dimensions but the last is at most this.
NAIVE_KERNEL_LIMIT = 20480


@MODELS.register_module()
class Conv3d(nn.Conv3d):
    """``nn.Conv3d`` that stays off ATen's naive CPU kernel.

    Same parameters and values as ``nn.Conv3d``. A small volume of batch 1 is
    convolved with its axes in the order (C, Y, X, Z) instead of (C, Z, Y, X):
    a longer leading product makes ATen choose oneDNN, about ten times faster
    (16 channels, 8 x 100 x 100 cells, forward and backward, two cores: 33
    instead of 350 ms). Goes when ATen counts the last dimension too.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
        if not input.is_cpu or input.shape[:-1].numel() > NAIVE_KERNEL_LIMIT:
            return super()._conv_forward(input, weight, bias)

        def z_last(values):
            return (*values[1:], values[0])

        out = F.conv3d(
            input.permute(0, 1, 3, 4, 2),
            weight.permute(0, 1, 3, 4, 2),
            bias,
            z_last(self.stride),
            z_last(self.padding),
            z_last(self.dilation),
            self.groups,
        )
        return out.permute(0, 1, 4, 2, 3)
