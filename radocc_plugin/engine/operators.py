"""How many operators a step dispatches: on a GPU each starts kernels."""

from collections import Counter
from typing import Callable

from torch.utils._python_dispatch import TorchDispatchMode

# These compute nothing: they make or name storage.
FREE = {
    'aten::empty',
    'aten::empty_like',
    'aten::empty_strided',
    'aten::new_empty',
    'aten::new_empty_strided',
    'aten::_unsafe_view',
    'aten::lift_fresh',
    'aten::_local_scalar_dense',
    'aten::sym_size',
    'aten::is_same_size',
    'aten::record_stream',
}


def starts_a_kernel(operator) -> bool:
    """Whether an overload does more than to make or view storage."""
    schema = operator._schema
    views = any(
        value.alias_info is not None and not value.alias_info.is_write for value in schema.returns
    )
    return not views and schema.name not in FREE


class OperatorCounter(TorchDispatchMode):
    """Counts operators that start a kernel, forward and backward.

    ATen's decompositions are as on the device that it runs on; an operator
    may start more than one kernel. A kernel that is launched without an
    operator (Triton's) is not counted.

    Args:
        place: Called at each operator; what it returns is counted for.
    """

    def __init__(self, place: Callable[[], str] = lambda: 'all') -> None:
        super().__init__()
        self.place = place
        self.counts = Counter()
        self.by_name = Counter()

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if starts_a_kernel(func):
            self.counts[self.place()] += 1
            self.by_name[func._schema.name] += 1
        return func(*args, **(kwargs or {}))
