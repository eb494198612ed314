"""Sparse LiDAR encoder: mmdet3d's layers, run by spconv or plain torch."""

import logging
from typing import Sequence, Tuple

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from radocc_plugin.models.occ_teacher.sparse_conv import SparseVolume, convolve
from radocc_plugin.registry import MODELS

BACKENDS = ('auto', 'spconv', 'torch')
NORM_CFG = dict(eps=1e-3, momentum=0.01)
INSTALL = (
    'install the spconv wheel of your CUDA version (e.g. pip install '
    "spconv-cu118; spconv for a CPU), or set backend='torch', which "
    'gives the same numbers more slowly'
)


class SparseStages(BaseModule):
    """Input layer and stages of ``mmdet3d.SparseEncoder``, on any backend.

    Residual blocks, under the names of mmdet3d: a stage is residual
    submanifold blocks and, but for the last, a convolution of stride 2.
    Saved weights load whatever backend saved them.

    Args:
        in_channels: Features of a voxel.
        encoder_channels: For each stage the channels of its blocks, and of
            its strided convolution at the end; n stages divide the grid by
            ``2 ** (n - 1)``.
        encoder_paddings: Padding of each of these; only those of the strided
            convolutions matter.
        base_channels: Channels of the input layer.
        backend: ``'spconv'`` for its kernels, ``'torch'`` for plain torch
            (exact, with gradients, on any device), ``'auto'`` for spconv
            where it is installed and the points are on CUDA, else torch.
            Weights and results do not depend on it.

    Raises:
        ValueError: If ``backend`` is none of them or cannot run, or if
            ``encoder_channels`` do not follow each other.
    """

    def __init__(
        self,
        in_channels: int,
        encoder_channels: Sequence[Sequence[int]],
        encoder_paddings: Sequence[Sequence],
        base_channels: int = 16,
        backend: str = 'auto',
        init_cfg=None,
    ) -> None:
        super().__init__(init_cfg)
        name = f'{type(self).__name__}.backend'
        if backend not in BACKENDS:
            raise ValueError(f'{name} takes one of {BACKENDS}, got {backend!r}')
        if backend == 'spconv' and not has_spconv():
            raise ValueError(f"{name}='spconv' needs spconv 2; {INSTALL}")
        if backend == 'auto' and torch.cuda.is_available() and not has_spconv():
            print_log(
                f'sparse convolutions run in plain torch; {INSTALL}', 'current', logging.WARNING
            )
        self.backend = backend
        channels = tuple(tuple(stage) for stage in encoder_channels)
        _check_channels(channels, base_channels)
        encoder = MODELS.build(
            dict(
                type='mmdet3d.SparseEncoder',
                in_channels=in_channels,
                sparse_shape=None,  # that of the voxels
                norm_cfg=dict(type='BN1d', **NORM_CFG),
                base_channels=base_channels,
                encoder_channels=channels,
                encoder_paddings=tuple(tuple(stage) for stage in encoder_paddings),
                block_type='basicblock',
            )
        )
        self.conv_input = encoder.conv_input
        self.encoder_layers = encoder.encoder_layers
        self._register_load_state_dict_pre_hook(_to_mmcv_layout, with_module=True)

    def encode(self, voxels: SparseVolume, *closing) -> SparseVolume:
        """Runs input layer, stages and ``closing`` sparse layers in float32.

        Raises:
            ValueError: If batch norm is to train on fewer than two voxels.
        """
        if self.training and len(voxels.features) < 2:
            raise ValueError(
                f'{len(voxels.features)} occupied voxels in the '
                'batch, training takes two or more; check the '
                'points and point_cloud_range'
            )
        layers = (self.conv_input, self.encoder_layers, *closing)
        with torch.autocast(voxels.features.device.type, enabled=False):
            voxels = SparseVolume(voxels.features.float(), voxels.active)
            if self._use_spconv(voxels.features):
                return _run_in_spconv(layers, voxels)
            for layer in layers:
                voxels = run_in_torch(layer, voxels)
            return voxels

    def _use_spconv(self, features: Tensor) -> bool:
        if self.backend == 'auto':
            return features.is_cuda and has_spconv()
        if (
            self.backend == 'spconv'
            and not features.is_cuda
            and (torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters()))
        ):
            raise ValueError(
                'spconv has no gradients on a CPU; set '
                f"{type(self).__name__}.backend='torch' to "
                'train there'
            )
        return self.backend == 'spconv'


@MODELS.register_module()
class OccSparseEncoder(SparseStages):
    """Occupied voxels to a dense volume on a coarser grid.

    The stages of ``SparseStages``, closed by a 1 x 1 x 1 convolution.

    Args:
        in_channels: Features of a voxel.
        out_channels: Channels of the volume.
        encoder_channels: See ``SparseStages``.
        **kwargs: ``base_channels`` and ``backend`` of ``SparseStages``.

    RadOcc's LiDAR teacher (OCC_Distill 5b4538f7, ``SparseEncoderLidarOCC``).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        encoder_channels: Sequence[Sequence[int]] = (
            (16, 16, 32),
            (32, 32, 64),
            (64, 64, 128),
            (128, 128),
        ),
        **kwargs,
    ) -> None:
        paddings = [(1,) * len(stage) for stage in encoder_channels]
        super().__init__(in_channels, encoder_channels, paddings, **kwargs)
        self.conv_out = nn.Sequential(
            nn.Linear(encoder_channels[-1][-1], out_channels, bias=False),
            nn.BatchNorm1d(out_channels, **NORM_CFG),
            nn.ReLU(inplace=True),
        )

    def forward(self, voxels: SparseVolume) -> Tuple[Tensor]:
        """Encodes occupied voxels.

        Returns:
            One level, the volume (B, out_channels, Z, Y, X), float32, zero
            in cells that no voxel reaches.

        Raises:
            ValueError: If batch norm is to train on fewer than two voxels.
        """
        encoded = self.encode(voxels)
        with torch.autocast(encoded.features.device.type, enabled=False):
            features = self.conv_out(encoded.features)
            return (SparseVolume(features, encoded.active).dense(),)


def _check_channels(stages: Sequence[Sequence[int]], channels: int) -> None:
    for number, stage in enumerate(stages):
        blocks = stage if number == len(stages) - 1 else stage[:-1]
        if not stage or any(block != channels for block in blocks):
            raise ValueError(
                f'encoder_channels[{number}] takes residual blocks of the '
                f'{channels} channels that come in, got {tuple(stage)}'
            )
        channels = stage[-1]


def has_spconv() -> bool:
    """Whether mmdet3d has found spconv 2."""
    from mmdet3d.models.layers.spconv import IS_SPCONV2_AVAILABLE

    return IS_SPCONV2_AVAILABLE


def _run_in_spconv(layers: Sequence[nn.Module], voxels: SparseVolume) -> SparseVolume:
    from spconv.pytorch import SparseConvTensor

    active = voxels.active
    volume = SparseConvTensor(
        voxels.features, active.cells().int(), list(active.shape), active.batch_size
    )
    for layer in layers:
        volume = layer(volume)
    batch, i, j, k = volume.indices.long().unbind(1)
    _, height, width = volume.spatial_shape
    keys = ((batch * volume.spatial_shape[0] + i) * height + j) * width + k
    keys, order = keys.sort()
    return SparseVolume(
        volume.features[order], type(active)(keys, volume.spatial_shape, active.batch_size)
    )


def run_in_torch(module: nn.Module, volume: SparseVolume) -> SparseVolume:
    """A sparse layer, block or sequence of mmdet3d without its kernels."""
    if hasattr(module, 'subm'):
        return _run_convolution(module, volume)
    if hasattr(module, 'conv1'):  # SparseBasicBlock
        out = _run_convolution(module.conv1, volume)
        out = out._replace(features=module.norm1(out.features).relu())
        out = _run_convolution(module.conv2, out)
        out = module.norm2(out.features) + volume.features
        return volume._replace(features=out.relu())
    if type(module).__name__ == 'SparseSequential':
        for child in module.children():
            volume = run_in_torch(child, volume)
        return volume
    return volume._replace(features=module(volume.features))


def _run_convolution(conv: nn.Module, volume: SparseVolume) -> SparseVolume:
    kernel_size = tuple(conv.kernel_size)
    if conv.subm:
        active = volume.active
        pairs = active.submanifold(kernel_size)
    else:
        active, pairs = volume.active.strided(kernel_size, tuple(conv.stride), tuple(conv.padding))
    weight = conv.weight
    if has_spconv():  # (out, z, y, x, in); mmcv has (z, y, x, in, out)
        weight = weight.permute(1, 2, 3, 4, 0)
    features = convolve(volume.features, weight.flatten(0, 2), pairs, len(active.keys))
    if conv.bias is not None:
        features = features + conv.bias
    return SparseVolume(features, active)


def _to_mmcv_layout(module, state_dict, prefix, *args) -> None:
    """Lets weights that were saved with spconv 2 load without it.

    The other way round is mmdet3d's (``layers/spconv/overwrite_spconv``).
    """
    if has_spconv():
        return
    for name, layer in module.named_modules():
        key = f'{prefix}{name}.weight'
        if hasattr(layer, 'subm') and key in state_dict:
            weight = state_dict[key]
            *kernel, inputs, outputs = layer.weight.shape
            if tuple(weight.shape) == (outputs, *kernel, inputs):
                state_dict[key] = weight.permute(1, 2, 3, 4, 0).contiguous()
