"""Logits whose probabilities are frequencies: what may be rendered."""

from typing import Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Pull of the fit towards (1, 0), in units of one voxel's weight in the mean;
# labels that the odds separate perfectly would drive the scale to infinity.
RIDGE = 1e-4
STEPS = (1.0, 0.5, 0.25, 0.125, 0.0)


def class_frequency_logits(
    logits: Tensor, class_weight: Sequence[float], free_index: int, model: str
) -> Tensor:
    """Logits whose softmax is the frequency of the classes.

    A weighted cross entropy has its minimum where softmax is proportional to
    weight times frequency; the logarithm of the weights is taken off again
    (logit adjustment, Menon et al., ICLR 2021). The free logit stays.

    Args:
        logits: Occupancy logits, (B, X, Y, Z, C).
        class_weight: Weights of the C classes.
        free_index: The free class.
        model: Whose they are, for the message.

    Raises:
        ValueError: If there is not one weight a class.
    """
    if len(class_weight) != logits.shape[-1]:
        raise ValueError(
            f'tap.class_weight of the {model} takes {logits.shape[-1]} '
            f'numbers, one a class, got {len(class_weight)}'
        )
    weight = torch.tensor(class_weight, device=logits.device)
    return logits - (weight / weight[free_index]).log()


def free_log_odds(logits: Tensor, free_index: int) -> Tensor:
    """Log-odds of free space against all other classes, (..., C) -> (...)."""
    free = free_index % logits.shape[-1]
    others = torch.cat((logits[..., :free], logits[..., free + 1 :]), -1)
    return logits[..., free] - others.logsumexp(-1)


@torch.no_grad()
def fit_free_odds(
    log_odds: Tensor, is_free: Tensor, weight: Tensor, iterations: int = 10
) -> Tuple[Tensor, Tensor]:
    """Scale and shift that make log-odds of free space those of the labels.

    Maximum likelihood (Platt scaling) by Newton's method, each step the best
    of a few lengths, without a wait for the device.

    Args:
        log_odds: Log-odds of free space, (V,).
        is_free: Whether the label is free, bool, (V,).
        weight: 1 for voxels that count, 0 for the others, (V,).
        iterations: Newton steps.

    Returns:
        Scale and shift, scalars of float64; (1, 0) where nothing counts.
    """
    odds, target, weight = log_odds.double(), is_free.double(), weight.double()
    weight = weight / weight.sum().clamp_min(1)
    rows = torch.stack((odds, torch.ones_like(odds)), -1)
    identity = odds.new_tensor((1.0, 0.0))
    ridge = RIDGE * torch.eye(2, dtype=odds.dtype, device=odds.device)
    found = identity
    lengths = odds.new_tensor(STEPS)

    def loss(parameters: Tensor) -> Tensor:
        values = F.softplus((1 - 2 * target) * (rows @ parameters))
        return (weight * values).sum() + 0.5 * RIDGE * (parameters - identity).square().sum()

    for _ in range(iterations):
        probability = (rows @ found).sigmoid()
        slope = rows.T @ (weight * (probability - target)) + RIDGE * (found - identity)
        curvature = (weight * probability * (1 - probability))[:, None] * rows
        step = torch.linalg.solve_ex(rows.T @ curvature + ridge, slope)[0]
        tries = found - lengths[:, None] * step
        found = tries[torch.stack([loss(one) for one in tries]).argmin()]
    return found[0], found[1]


def with_free_odds(logits: Tensor, scale: Tensor, shift: Tensor, free_index: int) -> Tensor:
    """Logits whose log-odds of free space are ``scale * log_odds + shift``;
    the other classes among themselves stay.

    Args:
        logits: (..., C).
        scale: Scalar, as ``fit_free_odds`` finds it.
        shift: Scalar.
        free_index: The free class.
    """
    odds = free_log_odds(logits, free_index)
    change = (scale - 1).to(logits.dtype) * odds + shift.to(logits.dtype)
    free = free_index % logits.shape[-1]
    return logits + change[..., None] * F.one_hot(
        torch.tensor(free, device=logits.device), logits.shape[-1]
    ).to(logits.dtype)
