"""The implementations behind ``render`` and ``ray_kl``.

Each one is a module with functions on raw tensors: ``render``, ``ray_kl``,
``render_pair`` (both, of teacher and student), and the ``_backward`` of each;
``chunked_density`` of logits and ``add_density_gradient_``.
``reference`` is plain autograd in float64 instead, the oracle of the others.
"""

from types import ModuleType
from typing import Set

import torch
from mmengine.logging import print_log

from radocc_plugin.rendering.backends import packed

BACKENDS = ('auto', 'reference', 'torch', 'cpp', 'triton')


def get_backend(
    name: str, device: torch.device, dtype: torch.dtype = torch.float32, gradients: bool = True
) -> ModuleType:
    """Module that implements a backend on a device.

    - ``auto``: on CUDA ``triton`` in float32 where it and the C compiler that
      it needs are installed, on a CPU ``cpp`` where a C++ compiler is found;
      else ``torch``.
    - ``torch``: any device, no compiler.
    - ``cpp``: CPU, compiled at the first use (about a minute, then cached);
      without a compiler a message, once, and ``torch``.
    - ``triton``: CUDA, float32; or the CPU under ``TRITON_INTERPRET=1`` for
      tests.

    With ``torch.use_deterministic_algorithms(True)`` ``auto`` takes ``torch``
    on CUDA, and gradients by ``triton`` raise RuntimeError; all others, and
    the light of the voxels by ``triton``, are the same in every run.

    All agree with ``reference`` up to rounding and ``min_transmittance``.

    Args:
        name: One of ``BACKENDS`` but ``reference``.
        device: Where the volumes are.
        dtype: Their type.
        gradients: Whether a backward pass may follow.

    Raises:
        ValueError: If the backend is unknown or does not run on the device.
        ImportError: If ``triton`` is asked for and not installed.
    """
    if name not in BACKENDS:
        raise ValueError(f'backend takes one of {BACKENDS}, got {name!r}')
    if name == 'auto' and device.type == 'cuda' and dtype == torch.float32:
        from radocc_plugin.rendering.backends import triton

        problem = triton.why_not_usable()
        if gradients and torch.are_deterministic_algorithms_enabled():
            problem = 'triton sums gradients in any order, which deterministic algorithms forbid'
        if problem is None:
            return triton
        _say_once(f'Rendering by the slower torch backend: {problem}')
        return packed
    if name == 'cpp' or (name == 'auto' and device.type == 'cpu'):
        from radocc_plugin.rendering.backends import cpp

        if device.type != 'cpu':
            raise ValueError(
                "backend 'cpp' runs on the CPU, the volumes are "
                f"on {device}; take 'auto', 'torch' or 'triton'"
            )
        problem = cpp.why_not_compiled()
        if problem is None:
            return cpp
        _say_once(f'Rendering by the slower torch backend: {problem}')
        return packed
    if name == 'triton':
        from radocc_plugin.rendering.backends import triton

        triton.check_usable(device)
        return triton
    return packed


_said: Set[str] = set()


def _say_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        print_log(message, logger='current', level=30)
