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
INSTALL = ('install the spconv wheel of your CUDA version (e.g. pip install '
           "spconv-cu118; spconv for a CPU), or set backend='torch', which "
           'gives the same numbers more slowly')


@MODELS.register_module()
class OccSparseEncoder(BaseModule):
    """Occupied voxels to a dense volume on a coarser grid.

    Input layer and stages are those of ``mmdet3d.SparseEncoder`` with residual
    blocks, under its names: a stage is residual submanifold blocks and, but
    for the last, a convolution of stride 2. A 1 x 1 x 1 convolution closes.

    Args:
        in_channels: Features of a voxel.
        out_channels: Channels of the volume.
        encoder_channels: For each stage the channels of its blocks, and of
            its strided convolution at the end; n stages divide the grid by
            ``2 ** (n - 1)``.
        base_channels: Channels of the input layer.
        backend: ``'spconv'`` for its kernels, ``'torch'`` for plain torch
            (exact, with gradients, on any device), ``'auto'`` for spconv
            where it is installed and the points are on CUDA, else torch.
            Weights and results do not depend on it.

    Raises:
        ValueError: If ``backend`` is none of them or cannot run, or if
            ``encoder_channels`` do not follow each other.

    RadOcc's LiDAR teacher (OCC_Distill 5b4538f7, ``SparseEncoderLidarOCC``).
    """

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 encoder_channels: Sequence[Sequence[int]] = ((16, 16, 32),
                                                              (32, 32, 64),
                                                              (64, 64, 128),
                                                              (128, 128)),
                 base_channels: int = 16,
                 backend: str = 'auto',
                 init_cfg=None) -> None:
        super().__init__(init_cfg)
        if backend not in BACKENDS:
            raise ValueError('OccSparseEncoder.backend takes one of '
                             f'{BACKENDS}, got {backend!r}')
        if backend == 'spconv' and not has_spconv():
            raise ValueError("OccSparseEncoder.backend='spconv' needs spconv "
                             f'2; {INSTALL}')
        if backend == 'auto' and torch.cuda.is_available() and \
                not has_spconv():
            print_log(f'sparse convolutions run in plain torch; {INSTALL}',
                      'current', logging.WARNING)
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
                encoder_paddings=tuple((1, ) * len(s) for s in channels),
                block_type='basicblock'))
        self.conv_input = encoder.conv_input
        self.encoder_layers = encoder.encoder_layers
        self.conv_out = nn.Sequential(
            nn.Linear(channels[-1][-1], out_channels, bias=False),
            nn.BatchNorm1d(out_channels, **NORM_CFG), nn.ReLU(inplace=True))
        self._register_load_state_dict_pre_hook(_to_mmcv_layout)

    def forward(self, voxels: SparseVolume) -> Tuple[Tensor]:
        """Encodes occupied voxels.

        Returns:
            One level, the volume (B, out_channels, Z, Y, X), float32, zero
            in cells that no voxel reaches.

        Raises:
            ValueError: If batch norm is to train on fewer than two voxels.
        """
        if self.training and len(voxels.features) < 2:
            raise ValueError(f'{len(voxels.features)} occupied voxels in the '
                             'batch, training takes two or more; check the '
                             'points and point_cloud_range')
        with torch.autocast(voxels.features.device.type, enabled=False):
            voxels = SparseVolume(voxels.features.float(), voxels.active)
            run = self._run_spconv if self._use_spconv(
                voxels.features) else self._run_torch
            encoded = run(voxels)
            features = self.conv_out(encoded.features)
            return SparseVolume(features, encoded.active).dense(),

    def _use_spconv(self, features: Tensor) -> bool:
        if self.backend == 'auto':
            return features.is_cuda and has_spconv()
        if self.backend == 'spconv' and not features.is_cuda and (
                torch.is_grad_enabled() and any(
                    p.requires_grad for p in self.parameters())):
            raise ValueError('spconv has no gradients on a CPU; set '
                             "OccSparseEncoder.backend='torch' to train there")
        return self.backend == 'spconv'

    def _run_spconv(self, voxels: SparseVolume) -> SparseVolume:
        from spconv.pytorch import SparseConvTensor
        active = voxels.active
        volume = SparseConvTensor(voxels.features,
                                  active.cells().int(), list(active.shape),
                                  active.batch_size)
        volume = self.encoder_layers(self.conv_input(volume))
        batch, z, y, x = volume.indices.long().unbind(1)
        depth, height, width = volume.spatial_shape
        keys = ((batch * depth + z) * height + y) * width + x
        keys, order = keys.sort()
        return SparseVolume(
            volume.features[order],
            type(active)(keys, volume.spatial_shape, active.batch_size))

    def _run_torch(self, voxels: SparseVolume) -> SparseVolume:
        return run_in_torch(self.encoder_layers,
                            run_in_torch(self.conv_input, voxels))


def _check_channels(stages: Sequence[Sequence[int]], channels: int) -> None:
    for number, stage in enumerate(stages):
        blocks = stage if number == len(stages) - 1 else stage[:-1]
        if not stage or any(block != channels for block in blocks):
            raise ValueError(
                f'encoder_channels[{number}] takes residual blocks of the '
                f'{channels} channels that come in, got {tuple(stage)}')
        channels = stage[-1]


def has_spconv() -> bool:
    """Whether mmdet3d has found spconv 2."""
    from mmdet3d.models.layers.spconv import IS_SPCONV2_AVAILABLE
    return IS_SPCONV2_AVAILABLE


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
        active, pairs = volume.active.strided(kernel_size, tuple(conv.stride),
                                              tuple(conv.padding))
    weight = conv.weight
    if has_spconv():  # (out, z, y, x, in); mmcv has (z, y, x, in, out)
        weight = weight.permute(1, 2, 3, 4, 0)
    features = convolve(volume.features, weight.flatten(0, 2), pairs,
                        len(active.keys))
    if conv.bias is not None:
        features = features + conv.bias
    return SparseVolume(features, active)


def _to_mmcv_layout(state_dict, prefix, *args) -> None:
    """Lets weights that were saved with spconv load without it.

    The other way round is mmdet3d's (``layers/spconv/overwrite_spconv``).
    """
    if has_spconv():
        return
    for key in [k for k in state_dict if k.startswith(prefix)]:
        value = state_dict[key]
        if value.dim() == 5 and value.shape[1] == value.shape[2] == \
                value.shape[3] and value.shape[0] != value.shape[1]:
            state_dict[key] = value.permute(1, 2, 3, 4, 0).contiguous()
