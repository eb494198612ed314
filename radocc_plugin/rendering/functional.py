"""Volume rendering along packed rays: the formulas, under plain autograd.

R rays, M crossings (packed ray by ray).
"""

from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Smallest hit probability in a logarithm.
MIN_HIT = 1e-7
# Largest optical depth: a density may be infinite, its light is gone long
# before.
MAX_OPTICAL_DEPTH = 1e4


def crossing_transmittance(optical_depth: Tensor, offsets: Tensor) -> Tuple[Tensor, Tensor]:
    """Probability that each ray reaches each of its crossings, and its end.

    Args:
        optical_depth: Density times length of each crossing, >= 0, (M,).
        offsets: First crossing of each ray and M at the end, int64, (R + 1,).

    Returns:
        Transmittance at the entry of each crossing, (M,), and the probability
        that the ray leaves the grid without a hit, (R,).

    Raises:
        ValueError: If ``offsets`` does not end at M.

    The sum runs in float64: a float32 sum over a whole batch of rays is wrong
    in the first digit.
    """
    if int(offsets[-1]) != len(optical_depth):
        raise ValueError(
            f'offsets must end at {len(optical_depth)}, the '
            f'number of crossings, got {int(offsets[-1])}'
        )
    total = F.pad(optical_depth.double().cumsum(0), (1, 0))
    base = total[offsets[:-1]]
    entry = total[:-1] - torch.repeat_interleave(
        base, offsets.diff(), output_size=len(optical_depth)
    )
    leave = total[offsets[1:]] - base
    return ((-entry).exp().to(optical_depth.dtype), (-leave).exp().to(optical_depth.dtype))


def termination(optical_depth: Tensor, offsets: Tensor) -> Tuple[Tensor, Tensor]:
    """Probability that each ray ends in each of its crossings.

    Args:
        optical_depth: Density times length of each crossing, >= 0, (M,).
        offsets: First crossing of each ray and M at the end, int64, (R + 1,).

    Returns:
        Weights, (M,), and the no-hit probability, (R,). Weights of a ray and
        its no-hit probability sum to 1.

    RadOcc section 3.2.
    """
    entry, no_hit = crossing_transmittance(optical_depth, offsets)
    return entry * -torch.expm1(-optical_depth), no_hit


def depth_in_crossing(optical_depth: Tensor, near: Tensor, far: Tensor) -> Tensor:
    """Integral of the ray parameter over the terminations in a crossing.

    ``int t sigma e^(-sigma s) ds`` from entry to exit with density constant:
    the light decays inside the crossing, so the mean is nearer than the
    middle. All for a ray that reaches the crossing's entry.

    Args:
        optical_depth: Density times length, >= 0, (M,).
        near: Ray parameter at the entry of each crossing, (M,).
        far: Ray parameter at its exit, (M,).

    Returns:
        Hit probability times mean ray parameter of the hits, (M,).
    """
    # (1 - (1 + tau) e^-tau) / tau, by its series where it would cancel.
    limit = 0.1 if optical_depth.dtype == torch.float32 else 0.01
    tau = optical_depth.clamp_min(limit)
    mean = (-torch.expm1(-tau) - tau * (-tau).exp()) / tau
    small = optical_depth.clamp_max(limit)
    series = small * (1 / 2 - small * (1 / 3 - small * (1 / 8 - small / 30)))
    mean = torch.where(optical_depth > limit, mean, series)
    return near * -torch.expm1(-optical_depth) + (far - near) * mean


def expected_depth(optical_depth: Tensor, near: Tensor, far: Tensor, offsets: Tensor) -> Tensor:
    """Expected ray parameter of the termination, accumulated.

    The result is not divided by the opacity: a ray that hits nothing has
    depth 0.

    Args:
        optical_depth: Density times length of each crossing, >= 0, (M,).
        near: Ray parameter at the entry of each crossing, (M,).
        far: Ray parameter at its exit, (M,).
        offsets: (R + 1,).

    Returns:
        Depth in units of the ray parameter, (R,).
    """
    entry, _ = crossing_transmittance(optical_depth, offsets)
    return sum_rays(entry * depth_in_crossing(optical_depth, near, far), offsets)


def sum_rays(values: Tensor, offsets: Tensor) -> Tensor:
    """Sum of the crossings of each ray: (M, ...) -> (R, ...)."""
    ray = torch.repeat_interleave(
        torch.arange(len(offsets) - 1, device=offsets.device),
        offsets.diff(),
        output_size=len(values),
    )
    return values.new_zeros(len(offsets) - 1, *values.shape[1:]).index_add(0, ray, values)


def packed_ray_kl(
    teacher_optical_depth: Tensor, student_optical_depth: Tensor, offsets: Tensor
) -> Tensor:
    """KL(teacher || student) of the ray termination distributions.

    The distributions have one bin for each crossing and one no-hit bin. The
    chain rule of the divergence gives ``sum_k T_k KL(Bernoulli(a_k) ||
    Bernoulli(b_k))`` with the teacher's transmittance T and the hit
    probabilities a (teacher) and b (student) of each crossing: no logarithm of
    a product of small numbers.

    Args:
        teacher_optical_depth: Density times length, >= 0, (M,).
        student_optical_depth: The same of the student, (M,).
        offsets: First crossing of each ray and M at the end, int64, (R + 1,).

    Returns:
        Divergence of each ray in nats, >= 0 up to rounding, (R,). Hit
        probabilities are at least ``MIN_HIT`` in the logarithms.

    Raises:
        ValueError: If the optical depths have different shapes.

    RadOcc section 3.3 with the no-hit bin made explicit.
    """
    if teacher_optical_depth.shape != student_optical_depth.shape:
        raise ValueError(
            'teacher_optical_depth and student_optical_depth '
            'must have one shape, got '
            f'{tuple(teacher_optical_depth.shape)} and '
            f'{tuple(student_optical_depth.shape)}'
        )
    teacher, student = teacher_optical_depth, student_optical_depth
    entry, _ = crossing_transmittance(teacher, offsets)
    hit = (-torch.expm1(-teacher)).clamp_min(MIN_HIT)
    student_hit = -torch.expm1(-student)
    # The bound changes the value, not the direction of the gradient: a
    # student that is sure of free space must still learn of a wall.
    student_hit = student_hit + (student_hit.clamp_min(MIN_HIT) - student_hit).detach()
    divergence = hit * (hit.log() - student_hit.log()) + (-teacher).exp() * (student - teacher)
    return sum_rays(entry * divergence, offsets)
