"""GridMask: squares on a grid are cut out of training images."""

import torch
from torch import Tensor, nn


class GridMask(nn.Module):
    """Keeps bars of a random grid and blanks the squares between them.

    One grid for all images of a call, in training only. As published, the
    grid is drawn on a canvas of one and a half times the size, whose middle
    is used; it has whole periods only, and none before the first bar. So with
    large periods there is less of it than the ratio says.

    Args:
        probability: Of a grid in a call.
        ratio: Width of a bar as a part of the grid's period.

    Raises:
        ValueError: If one is not in [0, 1].

    GridMask, arXiv 2001.04086, with the settings of BEVFormer: no rotation,
    bars are kept.
    """

    def __init__(self, probability: float = 0.7, ratio: float = 0.5) -> None:
        super().__init__()
        for name, value in dict(probability=probability, ratio=ratio).items():
            if not 0 <= value <= 1:
                raise ValueError(f'{name} takes [0, 1], got {value}')
        self.probability = probability
        self.ratio = ratio

    def forward(self, images: Tensor) -> Tensor:
        """Images (..., H, W), blank ones 0 after normalisation."""
        if not self.training or torch.rand(()) > self.probability:
            return images
        height, width = images.shape[-2:]
        period = int(torch.randint(2, max(3, height), ()))
        bar = min(max(int(period * self.ratio + 0.5), 1), period - 1)
        rows, columns = (
            bars(size, period, bar, int(torch.randint(period, ())), images.device)
            for size in (height, width)
        )
        return images * (rows[:, None] | columns)


def bars(size: int, period: int, width: int, start: int, device: torch.device) -> Tensor:
    """Which pixels of an axis lie in bars, bool, shape (size,).

    Args:
        size: Pixels of the axis.
        period: Pixels from bar to bar.
        width: Pixels of a bar.
        start: First bar's first pixel on the canvas.
        device: Where the answer is needed.
    """
    canvas = int(1.5 * size)
    pixels = torch.arange(size, device=device) + (canvas - size) // 2 - start
    drawn = (pixels >= 0) & (pixels < canvas // period * period)
    return drawn & (pixels % period < width)
