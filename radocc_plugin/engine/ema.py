"""The exponential moving average that BEVDet's published numbers come from."""

import math
from typing import Optional

import torch
from mmengine.hooks import EMAHook
from mmengine.model import BaseAveragedModel
from torch import Tensor, nn

from radocc_plugin.registry import HOOKS, MODELS


@MODELS.register_module()
class MEGVIIEMA(BaseAveragedModel):
    """Moving average whose decay grows from 0 to its final value.

    Update n multiplies the average by ``decay * (1 - exp(-n / gamma))`` and
    adds the rest of the live model. Every floating entry of the state dict is
    averaged, batch norm's statistics too; integer entries keep the value
    that they had in the copy.

    Args:
        model: The live model; it is copied.
        decay: Final decay.
        gamma: Updates in which the decay comes within 1 / e of ``decay``.
        init_updates: Updates counted as done before the first; BEVDet's
            configs start at 10560, where the decay is 0.994.
        device: Where the average is kept; that of the model by default.

    Raises:
        ValueError: If a number is out of range.

    BEVDet dev2.1, ``MEGVIIEMAHook``.
    """

    def __init__(
        self,
        model: nn.Module,
        decay: float = 0.999,
        gamma: float = 2000,
        init_updates: int = 0,
        device: Optional[torch.device] = None,
    ) -> None:
        if not 0 < decay < 1 or gamma <= 0 or init_updates < 0:
            raise ValueError(
                'MEGVIIEMA takes 0 < decay < 1, gamma > 0 and init_updates '
                f'>= 0, got {decay}, {gamma} and {init_updates}'
            )
        super().__init__(model, device=device, update_buffers=True)
        self.decay = decay
        self.gamma = gamma
        self.init_updates = init_updates
        self.steps.fill_(init_updates)

    def decay_at(self, update: int) -> float:
        """Share of the average that update number ``update`` keeps."""
        return self.decay * (1 - math.exp(-update / self.gamma))

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
        decay = self.decay_at(int(steps) + 1)
        averaged_param.mul_(decay).add_(source_param, alpha=1 - decay)

    def update_parameters(self, model: nn.Module) -> None:
        # MMEngine's copies the model in update 0; the published one averages.
        source = model.state_dict()
        for name, average in self.module.state_dict().items():
            if average.is_floating_point():
                self.avg_func(average, source[name].to(average.device), self.steps)
        self.steps += 1


@HOOKS.register_module()
class MEGVIIEMAHook(EMAHook):
    """``EMAHook`` with the published schedule.

    As with MMEngine's hook, validation and test see the average, and
    ``state_dict`` of a checkpoint is the average: ``epoch_24.pth`` is what
    BEVDet calls ``epoch_24_ema.pth``. The live weights and the number of
    updates lie in ``ema_state_dict`` and are resumed from there.

    The average starts from the weights that training or testing starts from,
    be they initialised or loaded from any file. (MMEngine's hook copies the
    model before it is initialised and relies on its first update, which copies
    again; a schedule that starts later would keep those random weights.)

    Args:
        decay, gamma, init_updates: See ``MEGVIIEMA``.
        **kwargs: Further arguments of ``EMAHook``.
    """

    def __init__(
        self, decay: float = 0.999, gamma: float = 2000, init_updates: int = 0, **kwargs
    ) -> None:
        super().__init__(
            'radocc_plugin.MEGVIIEMA', decay=decay, gamma=gamma, init_updates=init_updates, **kwargs
        )

    def before_train(self, runner) -> None:
        super().before_train(runner)
        self._start_from_model()

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        # Without a resumed average it starts from what the model has loaded.
        if runner._resume and 'ema_state_dict' in checkpoint:
            super().after_load_checkpoint(runner, checkpoint)

    def _swap_ema_parameters(self) -> None:
        self._start_from_model()
        super()._swap_ema_parameters()

    def _start_from_model(self) -> None:
        if self.ema_model.steps == self.ema_model.init_updates:
            self.ema_model.module.load_state_dict(self.src_model.state_dict())
