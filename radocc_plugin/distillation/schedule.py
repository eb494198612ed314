"""Weights of distillation losses that change over the training."""

import math
from dataclasses import dataclass
from typing import Dict, Mapping, Optional

from mmengine.logging import MessageHub
from torch import nn

SHAPES = ('linear', 'cosine')


@dataclass(frozen=True)
class WeightSchedule:
    """Factor of a loss's weight: 0, a ramp up, 1, a ramp down, 0.

    Args:
        start: The factor is 0 before.
        ramp: Length of the rise from 0 to 1 that begins at ``start``; 0 for
            a step.
        stop: The factor is 0 from here on; None for never.
        decay: Length of the fall from 1 to 0 that ends at ``stop``.
        by_epoch: Whether these are epochs, fractions allowed, or iterations.
            MMEngine's IterBasedTrainLoop has but one epoch: count iterations
            there.
        shape: ``linear`` or ``cosine`` (half a wave) ramps.

    Raises:
        ValueError: If the times overlap, or ``shape`` is unknown.
    """

    start: float = 0
    ramp: float = 0
    stop: Optional[float] = None
    decay: float = 0
    by_epoch: bool = False
    shape: str = 'linear'

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f'schedule.shape takes one of {SHAPES}, got {self.shape!r}')
        for name in ('start', 'ramp', 'decay'):
            if getattr(self, name) < 0:
                raise ValueError(f'schedule.{name} takes a number >= 0, got {getattr(self, name)}')
        if self.stop is None and self.decay:
            raise ValueError('schedule.decay ends at schedule.stop, which is None')
        if self.stop is not None and (self.stop < self.start + self.ramp + self.decay):
            raise ValueError(
                'schedule.stop takes at least start + ramp + decay = '
                f'{self.start + self.ramp + self.decay}, got {self.stop}'
            )

    def factor(self, time: float) -> float:
        """The factor in [0, 1] after ``time`` epochs or iterations."""
        if time < self.start or (self.stop is not None and time >= self.stop):
            return 0.0
        share = 1.0
        if self.ramp:
            share = min(share, (time - self.start) / self.ramp)
        if self.decay and self.stop is not None:
            share = min(share, (self.stop - time) / self.decay)
        if self.shape == 'cosine':
            share = 0.5 - 0.5 * math.cos(math.pi * share)
        return share

    def now(self) -> float:
        """The factor at the iteration that MMEngine's Runner is at.

        Raises:
            ValueError: If epochs are asked for and no Runner counts them.
        """
        hub = MessageHub.get_current_instance()
        iteration = hub.get_info('iter', 0)
        if not self.by_epoch:
            return self.factor(iteration)
        epochs, total = hub.get_info('max_epochs'), hub.get_info('max_iters')
        if not epochs or not total:
            raise ValueError('schedule.by_epoch=True needs the epochs of a running MMEngine Runner')
        return self.factor(iteration * epochs / total)


def active_factors(
    losses: Mapping[str, nn.Module], schedules: Mapping[str, WeightSchedule]
) -> Dict[str, float]:
    """Factors of the losses whose weight is above 0 now, by their names.

    Logs the weight of every loss as ``distill/weight_<name>``.
    """
    hub = MessageHub.get_current_instance()
    factors = {}
    for name, loss in losses.items():
        factor = schedules[name].now() if name in schedules else 1.0
        weight = factor * getattr(loss, 'loss_weight', 1.0)
        hub.update_scalar(f'train/distill/weight_{name}', weight)
        if weight > 0:
            factors[name] = factor
    return factors
