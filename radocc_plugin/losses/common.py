"""What the loss functions share: precision, masks, distances.

B batch, X Y Z grid, R rays, C classes or channels.
"""

import functools
import zlib
from typing import Callable, Optional, Union

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)
DISTANCES = ('l1', 'l2')


def _upcast(value):
    is_half = isinstance(value, Tensor) and value.dtype in HALF
    return value.float() if is_half else value


def full_precision(function: Callable) -> Callable:
    """Runs a loss function outside autocast, half tensors as float32.

    Float64 stays, for ``gradcheck``.
    """

    @functools.wraps(function)
    def run(tensor: Tensor, *args, **kwargs):
        with torch.autocast(tensor.device.type, enabled=False):
            return function(
                _upcast(tensor),
                *map(_upcast, args),
                **{name: _upcast(value) for name, value in kwargs.items()},
            )

    return run


def seeded_generator(*entropy: Union[int, str]) -> torch.Generator:
    """A CPU generator whose stream is independent of those of other entropy.

    Sums of seeds collide (seed 5 at step 0 is seed 0 at step 5); numpy's
    ``SeedSequence`` mixes the parts.

    Args:
        entropy: Numbers >= 0 and names.
    """
    parts = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in entropy]
    (seed,) = np.random.SeedSequence(parts).generate_state(1, np.uint64)
    # torch takes seeds up to 2 ** 63
    return torch.Generator().manual_seed(int(seed >> np.uint64(1)))


def connected_zero(tensor: Tensor) -> Tensor:
    """A zero with a zero gradient to ``tensor``, whatever its values."""
    return _upcast(tensor.flatten()[:0]).sum()


def check_shape(name: str, tensor: Tensor, shape, like: str) -> None:
    """Raises a ValueError unless ``tensor`` has the shape of ``like``."""
    if tensor.shape != tuple(shape):
        raise ValueError(
            f'{name} takes shape {tuple(shape)} to fit {like}, got {tuple(tensor.shape)}'
        )


def check_choice(name: str, value, choices) -> None:
    """Raises a ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f'{name} takes one of {tuple(choices)}, got {value!r}')


def visible_rows(volume: Tensor, mask: Optional[Tensor]) -> Tensor:
    """Rows of a volume where the mask is set: (..., C) -> (V, C).

    Args:
        volume: Volume with channels last, (..., C).
        mask: Cells to keep, (...); all if None.

    Raises:
        ValueError: If the mask does not fit.
    """
    rows = volume.flatten(0, -2)
    if mask is None:
        return rows
    check_shape('mask', mask, volume.shape[:-1], 'the volume')
    return rows.index_select(0, mask.flatten().bool().nonzero().squeeze(1))


def distance(difference: Tensor, kind: str) -> Tensor:
    """Absolute (``'l1'``) or squared (``'l2'``) value of each element.

    Raises:
        ValueError: If ``kind`` is neither.
    """
    check_choice('distance', kind, DISTANCES)
    return difference.abs() if kind == 'l1' else difference.square()


@full_precision
def class_kl(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, weight: Optional[Tensor] = None
) -> Tensor:
    """KL(teacher || student) of the class distributions of rows.

    Args:
        student: Logits, (R, C).
        teacher: The same of the teacher, (R, C); detached.
        temperature: Softens both; the loss is scaled by its square.
        weight: Weight of each row, (R,); 1 if None.

    Returns:
        Weighted mean over the rows in nats, a connected zero without rows.

    Raises:
        ValueError: If shapes disagree.

    Hinton et al., arXiv 1503.02531.
    """
    check_shape('teacher', teacher, student.shape, 'student')
    divergence = (
        F.kl_div(
            F.log_softmax(student / temperature, dim=-1),
            F.log_softmax(teacher.detach() / temperature, dim=-1),
            reduction='none',
            log_target=True,
        ).sum(-1)
        * temperature**2
    )
    if weight is None:
        weight = torch.ones_like(divergence)
    check_shape('weight', weight, divergence.shape, 'student')
    weight = weight.detach()
    return (divergence * weight).sum() / weight.sum().clamp_min(1e-6)
