"""No step of the optimiser by a loss or a gradient that is not finite."""

from typing import List, Optional, Sequence

import torch
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from radocc_plugin.registry import HOOKS


@HOOKS.register_module()
class FiniteStepHook(Hook):
    """Skips steps whose loss or gradient is not finite, before they are made.

    A skipped step leaves weights, optimiser and the statistics of batch norm
    as they were; models forget what is not finite of what they carry from
    frame to frame (``forget_non_finite``). It is logged with the loss terms
    and the tokens of its samples, of all processes, and counted in the
    message hub (``non_finite_steps``, part of every checkpoint). A step too
    many in a row stops the training, whose last checkpoint then has good
    weights.

    All processes decide alike without asking each other: a loss that is not
    finite makes gradients of its process NaN, and gradients are averaged over
    the processes. With accumulated gradients a step is all its batches.

    With a loss scaler (AMP) a step that the scaler skips to find its scale
    counts as well: leave it room, 16 or more.

    Args:
        max_skips: Steps in a row that may be skipped; the next one stops.
            With 0 the first one does.

    Raises:
        ValueError: If ``max_skips`` is negative, or the training has several
            optimisers.
        FloatingPointError: At the step that stops.
    """

    # before averages and checkpoints of the same iteration
    priority = 'VERY_HIGH'

    def __init__(self, max_skips: int = 20) -> None:
        if max_skips < 0:
            raise ValueError(f'FiniteStepHook takes max_skips >= 0, got {max_skips}')
        self.max_skips = max_skips
        self.in_a_row = 0
        self._batches: List[dict] = []
        self._finite: Optional[bool] = None  # of the step just made

    def before_train(self, runner) -> None:
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, OptimWrapperDict):
            raise ValueError(f'FiniteStepHook takes one optimiser, got {sorted(wrapper.keys())}')
        self._statistics = [
            buffer
            for module in runner.model.modules()
            if isinstance(module, _BatchNorm)
            for buffer in module.buffers()
        ]
        backward, step = wrapper.backward, wrapper.step

        def checked_backward(loss: Tensor, **kwargs) -> None:
            # 1 changes no bit of a gradient, NaN leaves none of it
            factor = torch.where(loss.detach().isfinite(), 1.0, torch.nan)
            backward(loss * factor.to(loss.dtype), **kwargs)

        def checked_step(**kwargs) -> None:
            self._finite = gradients_are_finite(wrapper.optimizer)
            # a loss scaler skips by itself, and learns from it
            if self._finite or hasattr(wrapper, 'loss_scaler'):
                step(**kwargs)

        # the one place between gradients and step, of any wrapper
        wrapper.backward, wrapper.step = checked_backward, checked_step

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self._finite = None
        if not self._batches:
            self._before = [buffer.clone() for buffer in self._statistics]

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._batches.append(
            dict(
                tokens=tokens_of(data_batch),
                losses={
                    name: value.detach()
                    for name, value in (outputs or {}).items()
                    if isinstance(value, Tensor)
                },
            )
        )
        if self._finite is None:  # gradients are still being accumulated
            return
        batches, self._batches = self._batches, []
        if self._finite:
            self.in_a_row = 0
            return
        self.in_a_row += 1
        self._restore(runner.model)
        total = runner.message_hub.runtime_info.get('non_finite_steps', 0) + 1
        runner.message_hub.update_info('non_finite_steps', total)
        what = (
            f'step of iteration {runner.iter + 1} is not finite and was '
            f'skipped ({self.in_a_row} in a row, {total} in all): '
            f'{describe(batches)}'
        )
        if self.in_a_row > self.max_skips:
            raise FloatingPointError(
                f'{what}. FiniteStepHook.max_skips={self.max_skips} in a row '
                'are borne; weights and the last checkpoint are good'
            )
        runner.logger.warning(what)

    @torch.no_grad()
    def _restore(self, model: nn.Module) -> None:
        for buffer, before in zip(self._statistics, self._before):
            buffer.copy_(before)
        for module in model.modules():
            if hasattr(module, 'forget_non_finite'):
                module.forget_non_finite()


def gradients_are_finite(optimizer: torch.optim.Optimizer) -> bool:
    """Whether all gradients of an optimiser's parameters are finite."""
    largest = [
        parameter.grad.abs().amax()
        for group in optimizer.param_groups
        for parameter in group['params']
        if parameter.grad is not None and parameter.grad.numel()
    ]
    if not largest:
        return True
    # one wait for the device; a maximum is NaN if anything is
    return bool(torch.stack([value.float() for value in largest]).isfinite().all())


def tokens_of(data_batch) -> List[str]:
    """Tokens of the samples of a batch, as far as it has them."""
    samples = (data_batch or {}).get('data_samples') or []
    return [
        str(sample.metainfo['token'])
        for sample in samples
        if 'token' in getattr(sample, 'metainfo', {})
    ]


def describe(batches: Sequence[dict]) -> str:
    """Loss terms that are not finite, and samples, of all processes."""
    own = (
        [token for batch in batches for token in batch['tokens']],
        [
            name
            for batch in batches
            for name, value in batch['losses'].items()
            if not value.isfinite().all()
        ],
    )
    tokens, names = zip(*all_gather_object(own))
    names = sorted(set(sum(names, [])))
    return (
        f'{", ".join(names) or "the gradient"}; samples '
        f'{", ".join(sum(tokens, [])) or "without tokens"}'
    )
