"""From a collated batch to network inputs on the device."""

from typing import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor

from radocc_plugin.registry import MODELS


@MODELS.register_module()
class OccDataPreprocessor(BaseDataPreprocessor):
    """Moves a batch to the device, stacks and normalises its images.

    Takes what ``pseudo_collate`` makes of ``PackOccInputs``; returns
    ``inputs`` with ``imgs`` (B, N, 3, H, W) float32 and, if loaded,
    ``adjacent_imgs`` (B, A, N, 3, H, W), newest first, and ``points`` (a list
    of B tensors (P, 5)); and ``data_samples``, a list.

    Args:
        mean, std: Statistics of the three channels in the order that the
            network sees, on the scale of [0, 255].
        channel_order: ``'rgb'``, or ``'bgr'`` to reverse the loaded channels
            first. BEVDet's released weights expect ``'bgr'`` *with* the RGB
            mean and std: blue minus the mean of red, and so on.
        pad_size_divisor: Height and width are padded at the lower and right
            edge to a multiple of it, with 0 after normalisation.

    Raises:
        ValueError: If an argument is malformed, or the images of a batch
            differ in shape.
    """

    def __init__(
        self,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        channel_order: str = 'rgb',
        pad_size_divisor: int = 1,
        non_blocking: bool = False,
    ) -> None:
        super().__init__(non_blocking)
        if channel_order not in ('rgb', 'bgr'):
            raise ValueError(f"channel_order takes 'rgb' or 'bgr', got {channel_order!r}")
        if pad_size_divisor < 1:
            raise ValueError(f'pad_size_divisor takes at least 1, got {pad_size_divisor}')
        self.channel_order = channel_order
        self.pad_size_divisor = pad_size_divisor
        for name, values in dict(mean=mean, std=std).items():
            if len(values) != 3:
                raise ValueError(f'{name} takes 3 values, got {values}')
            # buffers follow the device, but belong to no checkpoint
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        data = self.cast_data(data)
        inputs = dict(data['inputs'])
        for name in ('img', 'adjacent_img'):
            if name in inputs:
                inputs[f'{name}s'] = self._normalise(name, inputs.pop(name))
        return dict(inputs=inputs, data_samples=data['data_samples'])

    def _normalise(self, name: str, images: Sequence[torch.Tensor]) -> torch.Tensor:
        shapes = {tuple(image.shape) for image in images}
        if len(shapes) != 1:
            raise ValueError(
                f'{name} must have one shape (..., N, 3, H, W) '
                f'in the whole batch, got {sorted(shapes)}'
            )
        batch = torch.stack(list(images)).float()
        if self.channel_order == 'bgr':
            batch = batch.flip(-3)
        batch = (batch - self.mean) / self.std
        padding = [-size % self.pad_size_divisor for size in batch.shape[-2:]]
        return F.pad(batch, (0, padding[1], 0, padding[0])) if any(padding) else batch
