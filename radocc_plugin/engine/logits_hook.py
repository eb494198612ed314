"""Hands a model's logits to the metrics that take them."""

from contextlib import ExitStack
from typing import Callable, List, Optional, Sequence

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from radocc_plugin.distillation.calibration import class_frequency_logits
from radocc_plugin.distillation.tap import OccTap, build_tap
from radocc_plugin.registry import HOOKS


@HOOKS.register_module()
class LogitsForMetrics(Hook):
    """Gives the logits of each batch to the metrics that take them.

    Args:
        tap: Where they are, see ``OccTap``; None for a model that brings its
            ``occ_tap``, and for a distilled one.
    """

    def __init__(self, tap: Optional[dict] = None) -> None:
        self.tap = tap
        self._open = ExitStack()

    def before_test(self, runner) -> None:
        self._start(runner.model, runner.test_loop.evaluator.metrics)

    def before_val(self, runner) -> None:
        self._start(runner.model, runner.val_loop.evaluator.metrics)

    def after_test(self, runner) -> None:
        self._open.close()

    def after_val(self, runner) -> None:
        self._open.close()

    def _start(self, model: nn.Module, metrics: Sequence) -> None:
        takers = [metric for metric in metrics if hasattr(metric, 'take_logits')]
        if not takers:
            return
        model = model.module if is_model_wrapper(model) else model
        owner, tap = model, getattr(model, 'student_tap', None)
        if tap is not None:
            owner = model.get_submodule('student')
        else:
            tap = build_tap(self.tap, model, 'LogitsForMetrics.tap')
        outputs = self._open.enter_context(tap.record(owner))
        for metric in takers:
            metric.take_logits = _reader(tap, outputs)


def _reader(tap: OccTap, outputs: List) -> Callable[[], Tensor]:
    def read() -> Tensor:
        logits = tap.read(outputs)
        outputs.clear()
        if tap.class_weight is not None:
            return class_frequency_logits(logits, tap.class_weight, -1, 'model')
        return logits

    return read
