"""Reads tensors from inside any model during its own forward."""

import difflib
import re
from contextlib import ExitStack, contextmanager
from typing import Dict, Iterator, List, Mapping, Optional, Sequence

from einops import rearrange
from torch import Tensor, nn

CANONICAL = 'b x y z c'


class FeatureTap:
    """Picks up a feature at the output of a named module.

    Args:
        module: Path of the module, as in ``named_modules()``.
        layout: Axes of its output as an einops pattern, e.g. ``'b c y x'``
            or ``'b (c z) y x'`` with ``axes`` given. The axes come out in the
            order b x y z c, or in the one behind an arrow: ``'b n c h w -> b
            n h w c'``; batch first, channels last.
        output_index: Which item to take where the module returns a tuple,
            list or dict; None where it returns the tensor.
        call_index: Which call counts where the forward pass runs the module
            several times (levels, frames); the last by default.
        axes: Sizes of merged axes of ``layout``, e.g. ``dict(z=16)``.

    Raises:
        ValueError: If ``layout`` is not valid.
    """

    def __init__(
        self,
        module: str,
        layout: str = CANONICAL,
        output_index=None,
        call_index: int = -1,
        axes: Optional[dict] = None,
    ) -> None:
        self.module = module
        self.layout = layout
        self.source, _, target = layout.partition('->')
        names = _axes(self.source)
        self.target = target.strip() or ' '.join(
            name for name in CANONICAL.split() if name in names
        )
        self.output_index = output_index
        self.call_index = call_index
        self.axes = axes or {}
        self._check_layout(names)

    def _check_layout(self, names: List[str]) -> None:
        order = self.target.split()
        if (
            sorted(names) != sorted(order)
            or len(set(names)) < len(names)
            or order[:1] != ['b']
            or order[-1:] != ['c']
        ):
            raise ValueError(
                'tap.layout takes b, c and further axes once each, of x y z '
                'or with an arrow to the order wanted, batch first and '
                'channels last (e.g. "b c y x" or "b n c h w -> b n h w c"), '
                f'got {self.layout!r}'
            )

    def find(self, model: nn.Module) -> nn.Module:
        """The tapped module.

        Raises:
            ValueError: If the model has no such module.
        """
        modules = dict(model.named_modules())
        if self.module not in modules:
            close = difflib.get_close_matches(self.module, modules, n=3)
            hint = close or [name for name, _ in model.named_children()]
            raise ValueError(
                f'{type(model).__name__} has no module {self.module!r} to '
                f'tap; it has {", ".join(hint)} ...'
            )
        return modules[self.module]

    @contextmanager
    def record(self, model: nn.Module) -> Iterator[List[Tensor]]:
        """Collects the outputs of the module while the context is open.

        Closed before the backward pass, it does not see what activation
        checkpointing computes again.

        Yields:
            A list that the model's forward fills, one item a call.

        Raises:
            ValueError: If the model has no such module.
        """
        outputs: List = []
        handle = self.find(model).register_forward_hook(
            lambda module, args, output: outputs.append(output)
        )
        try:
            yield outputs
        finally:
            handle.remove()

    def output(self, outputs: List) -> Tensor:
        """The recorded output as the module returned it.

        Raises:
            ValueError: If nothing was recorded or it is no tensor.
        """
        where = f'the tapped module {self.module!r}'
        if not outputs:
            raise ValueError(f'{where} did not run in the forward pass')
        output = self._pick(outputs, self.call_index, 'tap.call_index', where)
        if self.output_index is not None:
            output = self._pick(output, self.output_index, 'tap.output_index', where)
        if not isinstance(output, Tensor):
            raise ValueError(
                f'{where} returned {type(output).__name__}, not a tensor; set tap.output_index'
            )
        return output

    def read(self, outputs: List, needs_grad: bool = False) -> Tensor:
        """The recorded output in the layout wanted.

        Args:
            outputs: What ``record`` yielded.
            needs_grad: Whether an output without gradient is an error.

        Raises:
            ValueError: If nothing was recorded or the output does not fit.
        """
        output = self.output(outputs)
        where = f'the tapped module {self.module!r}'
        if needs_grad and not output.requires_grad:
            raise ValueError(
                f'the output of {where} carries no gradient: it is frozen, or '
                'inside a part that reentrant activation checkpointing '
                '(with_cp) runs without gradient; tap that part as a whole, '
                'or checkpoint with use_reentrant=False'
            )
        try:
            return rearrange(output, f'{self.source} -> {self.target}', **self.axes)
        except Exception as error:
            raise ValueError(
                f'output of {where} has shape {tuple(output.shape)}, which '
                f'does not fit tap.layout {self.layout!r}: {error}'
            ) from error

    @staticmethod
    def _pick(items, index, field: str, where: str):
        if isinstance(items, dict):
            choices = sorted(items)
        elif isinstance(items, (list, tuple)):
            choices = list(range(-len(items), len(items)))
        else:
            choices = []
        if index not in choices:
            raise ValueError(
                f'{field} of {where} takes one of {choices or "None only"} '
                f'for its {type(items).__name__}, got {index!r}'
            )
        return items[index]


class OccTap(FeatureTap):
    """Picks up occupancy logits, (B, X, Y, Z, C).

    Args:
        module: As in ``FeatureTap``, as are the others.
        layout: Names the axes b x y z c, once each.
        class_order: Index in the model's classes of each class of ours;
            None where the orders agree.
        class_weight: Weights of our classes in the model's cross entropy,
            which the distiller takes out of the logits that it renders; None
            for equal ones.

    Raises:
        ValueError: If ``layout`` does not name the axes b x y z c once each,
            or a weight is not positive.
    """

    def __init__(
        self,
        module: str,
        layout: str = CANONICAL,
        output_index=None,
        call_index: int = -1,
        class_order: Optional[Sequence[int]] = None,
        axes: Optional[dict] = None,
        class_weight: Optional[Sequence[float]] = None,
    ) -> None:
        super().__init__(module, layout, output_index, call_index, axes)
        self.class_order = None if class_order is None else list(class_order)
        self.class_weight = tuple(class_weight) if class_weight else None
        if self.class_weight and min(self.class_weight) <= 0:
            raise ValueError(f'tap.class_weight takes positive numbers, got {class_weight}')

    def _check_layout(self, names: List[str]) -> None:
        if sorted(names) != sorted(CANONICAL.split()) or self.target != CANONICAL:
            raise ValueError(
                'tap.layout takes the axes b x y z c once each '
                f'(e.g. "b c z y x"), got {self.layout!r}'
            )

    def read(self, outputs: List, needs_grad: bool = False) -> Tensor:
        """See ``FeatureTap.read``; classes in our order."""
        logits = super().read(outputs, needs_grad)
        if self.class_order is None:
            return logits
        if not all(0 <= i < logits.shape[-1] for i in self.class_order):
            raise ValueError(
                f'tap.class_order takes indices of the {logits.shape[-1]} '
                f'classes at {self.module!r}, got {self.class_order}'
            )
        return logits[..., self.class_order]


def _axes(pattern: str) -> List[str]:
    return re.sub('[()]', ' ', pattern).split()


@contextmanager
def record_taps(model: nn.Module, taps: Mapping[str, FeatureTap]) -> Iterator[Dict[str, List]]:
    """Opens all taps of a model; yields what they record by their names."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(tap.record(model)) for name, tap in taps.items()}


def build_tap(tap: Optional[dict], model: nn.Module, field: str) -> OccTap:
    """The tap of the logits from a config, or the one that the model brings.

    Raises:
        ValueError: If there is neither, or the model has no such module.
    """
    tap = tap or getattr(model, 'occ_tap', None)
    if tap is None:
        raise ValueError(
            f'{type(model).__name__} brings no occ_tap; set RadOccDistiller.'
            f'{field} = dict(module=<path of the module that returns the '
            'occupancy logits>, layout=<e.g. "b c z y x">)'
        )
    built = OccTap(**tap)
    built.find(model)
    return built


def build_feature_taps(
    configs: Optional[Mapping[str, dict]], model: nn.Module
) -> Dict[str, FeatureTap]:
    """Taps of features by their names.

    Raises:
        ValueError: If the model misses a module.
    """
    taps = {name: FeatureTap(**tap) for name, tap in (configs or {}).items()}
    for tap in taps.values():
        tap.find(model)
    return taps
