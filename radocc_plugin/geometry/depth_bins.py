"""Depth bins of the lift-splat view transformer."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DepthBins:
    """The D depths at which image features are lifted.

    Args:
        first: Depth of the first bin in metres.
        end: Upper end of the linear bins in metres.
        step: Width of the linear bins in metres; with the ends it also says
            how many bins there are.
        sid: Whether the bins grow with depth (spacing-increasing): equal
            ratios from ``first`` to ``end - 1``, as in FlashOcc's M2
            (FlashOCC @4084861).

    Raises:
        ValueError: If the bins are empty or not in front of the camera.
    """

    first: float
    end: float
    step: float
    sid: bool = False

    def __post_init__(self) -> None:
        last = self.end - 1 if self.sid else self.end
        if not (0 < self.first < last and self.step > 0):
            raise ValueError(
                'grid_config.depth takes (first, end, step) with 0 < first < '
                f'{"end - 1" if self.sid else "end"} and step > 0, got '
                f'{(self.first, self.end, self.step)}'
            )

    @property
    def count(self) -> int:
        """Number of bins D."""
        return len(torch.arange(self.first, self.end, self.step))

    @property
    def _per_log(self) -> float:
        """Spacing-increasing bins in a factor of e."""
        return (self.count - 1) / math.log((self.end - 1) / self.first)

    def depths(self) -> Tensor:
        """Where features are lifted to, metres, shape (D,), float32."""
        if not self.sid:
            return torch.arange(self.first, self.end, self.step, dtype=torch.float32)
        steps = torch.arange(self.count, dtype=torch.float64)
        return (self.first * (steps / self._per_log).exp()).float()

    def position(self, depth: Tensor) -> Tensor:
        """Bins between ``first`` and a depth; its floor is the bin."""
        if self.sid:
            return (depth / self.first).log() * self._per_log
        return (depth - self.first) / self.step
