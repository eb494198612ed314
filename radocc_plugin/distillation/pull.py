"""Distillation scaled down apart from the student's own losses."""

from typing import Dict, Mapping

import torch
from torch import Tensor


def limit_pull(
    ours: Dict[str, Tensor], own: Dict[str, Tensor], tapped: Tensor, max_pull: float
) -> Dict[str, Tensor]:
    """Our losses, scaled down where their gradient at the logits exceeds
    ``max_pull`` times that of the student's own.

    Args:
        ours: Losses of distillation.
        own: The student's, of any structure that MMEngine sums.
        tapped: What the student's head returned.
        max_pull: See ``RadOccDistiller``.

    Returns:
        The losses and ``distill_scale``, which is only logged.
    """

    def norm(losses: Mapping) -> Tensor:
        values = [
            part.mean()
            for name, value in losses.items()
            if 'loss' in name
            for part in (value if isinstance(value, (list, tuple)) else (value,))
            if part.requires_grad
        ]
        if not values:
            return tapped.new_zeros((), dtype=torch.float32)
        (slope,) = torch.autograd.grad(
            torch.stack([value.float() for value in values]).sum(),
            tapped,
            retain_graph=True,
            allow_unused=True,
        )
        if slope is None:
            return tapped.new_zeros((), dtype=torch.float32)
        return slope.float().norm()

    limit = max_pull * norm(own)
    scale = (limit / norm(ours).clamp_min(1e-12)).clamp_max(1.0)
    scale = torch.where(limit > 0, scale, 1.0).detach()  # a batch without labels has no limit
    scaled = {name: scale * value for name, value in ours.items()}
    return {**scaled, 'distill_scale': scale}
