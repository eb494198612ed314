"""GridMask: squares on a grid are cut out of training images."""
import torch
from torch import Tensor, nn


class GridMask(nn.Module):
    """Keeps bars of a random grid and blanks the squares between them.

    One grid for all images of a call, in training only.

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
            ((torch.arange(size, device=images.device)
              + int(torch.randint(period, ()))) % period) < bar
            for size in (height, width))
        return images * (rows[:, None] | columns)
