"""Reads a volume of logits from inside any model during its own forward."""
import difflib
from contextlib import contextmanager
from typing import Iterator, List, Optional, Sequence

from einops import rearrange
from torch import Tensor, nn

CANONICAL = 'b x y z c'


class OccTap:
    """Picks up occupancy logits at the output of a named module.

    Args:
        module: Path of the module, as in ``named_modules()``.
        layout: Axes of its output as an einops pattern over b x y z c, e.g.
            ``'b c z y x'`` or ``'b x y (z c)'`` with ``axes`` given.
        output_index: Which item to take where the module returns a tuple,
            list or dict; None where it returns the tensor.
        class_order: Index in the model's classes of each class of ours;
            None where the orders agree.
        axes: Sizes of merged axes of ``layout``, e.g. ``dict(z=16)``.

    Raises:
        ValueError: If ``layout`` does not name the axes b x y z c once each.
    """

    def __init__(self,
                 module: str,
                 layout: str = CANONICAL,
                 output_index=None,
                 class_order: Optional[Sequence[int]] = None,
                 axes: Optional[dict] = None) -> None:
        names = layout.replace('(', ' ').replace(')', ' ').split()
        if sorted(names) != sorted(CANONICAL.split()):
            raise ValueError('tap.layout takes the axes b x y z c once each '
                             f'(e.g. "b c z y x"), got {layout!r}')
        self.module = module
        self.layout = layout
        self.output_index = output_index
        self.class_order = None if class_order is None else list(class_order)
        self.axes = axes or {}

    @contextmanager
    def record(self, model: nn.Module) -> Iterator[List[Tensor]]:
        """Collects the outputs of the module while the context is open.

        Yields:
            A list that the model's forward fills, one item a call.

        Raises:
            ValueError: If the model has no such module.
        """
        modules = dict(model.named_modules())
        if self.module not in modules:
            close = difflib.get_close_matches(self.module, modules, n=3)
            hint = close or [name for name, _ in model.named_children()]
            raise ValueError(
                f'{type(model).__name__} has no module {self.module!r} to '
                f'tap; it has {", ".join(hint)} ...')
        outputs: List = []
        handle = modules[self.module].register_forward_hook(
            lambda module, args, output: outputs.append(output))
        try:
            yield outputs
        finally:
            handle.remove()

    def logits(self, outputs: List) -> Tensor:
        """The last recorded output as (B, X, Y, Z, C).

        Raises:
            ValueError: If nothing was recorded or the output does not fit.
        """
        if not outputs:
            raise ValueError(f'the tapped module {self.module!r} did not run '
                             'in the forward pass')
        output = outputs[-1]
        if self.output_index is not None:
            output = output[self.output_index]
        if not isinstance(output, Tensor):
            raise ValueError(
                f'the tapped module {self.module!r} returned '
                f'{type(output).__name__}, not a tensor; set tap.output_index')
        try:
            output = rearrange(output, f'{self.layout} -> {CANONICAL}',
                               **self.axes)
        except Exception as error:
            raise ValueError(
                f'output of the tapped module {self.module!r} has shape '
                f'{tuple(output.shape)}, which does not fit tap.layout '
                f'{self.layout!r}: {error}') from error
        return output if self.class_order is None else output[
            ..., self.class_order]


def build_tap(tap: Optional[dict], model: nn.Module, field: str) -> OccTap:
    """A tap from a config, or the one that the model brings along.

    Raises:
        ValueError: If there is neither.
    """
    tap = tap or getattr(model, 'occ_tap', None)
    if tap is None:
        raise ValueError(
            f'{type(model).__name__} brings no occ_tap; set RadOccDistiller.'
            f'{field} = dict(module=<path of the module that returns the '
            'occupancy logits>, layout=<e.g. "b c z y x">)')
    return OccTap(**tap)
