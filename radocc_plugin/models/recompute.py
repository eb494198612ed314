"""Activations that are computed again instead of kept."""

from typing import Any, Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def run(layer: Callable, *inputs: Tensor, with_cp: bool) -> Any:
    """Calls a layer; its activations are computed again if ``with_cp``.

    They would only be kept for a gradient. Batch norms see a batch twice
    where it is computed twice, as in the published code.

    Args:
        layer: Anything that is called with tensors.
        *inputs: Its arguments.
        with_cp: Whether the backward pass computes the layer again.
    """
    if with_cp and torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)
