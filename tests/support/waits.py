"""Tensors that stand for a GPU's and tell where the host waits for them.

What is computed with one of them is one of them; what moves a number of it to
the host, or needs a size that only the device knows, is noted with the line of
the package that asked.
"""

import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import torch

PACKAGE = str(Path(__file__).resolve().parents[2] / 'radocc_plugin')
# These wait whatever their arguments are.
WAIT = {
    'item',
    'tolist',
    '__bool__',
    '__int__',
    '__float__',
    '__index__',
    'cpu',
    'numpy',
    '__array__',
    'nonzero',
    'argwhere',
    'unique',
    'unique_consecutive',
    '_unique2',
    'masked_select',
    'equal',
    'allclose',
    'bincount',
    'is_nonzero',
}
_noted: Counter = Counter()


class OnDevice(torch.Tensor):
    """A tensor of a device that is not there."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if waits(getattr(func, '__name__', ''), args, kwargs):
            _noted[_caller()] += 1
        result = super().__torch_function__(func, types, args, kwargs)
        # a copy on the host is a tensor like any other
        return result.as_subclass(torch.Tensor) if func is torch.Tensor.cpu else result


def waits(name: str, args: tuple, kwargs: dict) -> bool:
    """Whether a call makes the host wait for the device."""
    if name in ('__getitem__', '__setitem__'):
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return any(isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in index)
    if name == 'repeat_interleave':
        repeats = kwargs.get('repeats', args[1] if len(args) > 1 else None)
        return isinstance(repeats, torch.Tensor) and 'output_size' not in kwargs
    if name == 'where':
        return len(args) + len(kwargs) == 1
    return name in WAIT


def _caller() -> str:
    frame = sys._getframe(2)
    while frame and not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    if frame is None:
        return 'elsewhere'
    path = Path(frame.f_code.co_filename).relative_to(PACKAGE)
    return f'{path.as_posix()}:{frame.f_code.co_name}'


def on_device(value):
    """Tensors, and those in containers and data samples, put there."""
    if isinstance(value, torch.Tensor):
        return value.as_subclass(OnDevice)
    if isinstance(value, dict):
        return {key: on_device(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [on_device(item) for item in value]
    if hasattr(value, 'all_items'):  # a data sample or element of one
        for key, item in value.items():
            if isinstance(item, torch.Tensor) or hasattr(item, 'all_items'):
                setattr(value, key, on_device(item))
    return value


@contextmanager
def noted_waits() -> Iterator[Counter]:
    """Waits of what runs inside, by file and function."""
    _noted.clear()
    yield _noted
