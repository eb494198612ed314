"""Volume rendering of piecewise-constant volumes along packed rays.

R rays, M segments (packed ray by ray), V voxels, C channels.
"""
from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor


def segment_transmittance(optical_depth: Tensor,
                          offsets: Tensor) -> Tuple[Tensor, Tensor]:
    """Probability that each ray reaches each of its segments, and its end.

    Args:
        optical_depth: Density times length of each segment, >= 0, (M,).
        offsets: First segment of each ray and M at the end, int64, (R + 1,).

    Returns:
        Transmittance at the entry of each segment, (M,), and the probability
        that the ray leaves the grid without a hit, (R,).

    Raises:
        ValueError: If ``offsets`` does not end at M.

    The sum runs in float64: a float32 sum over a whole batch of rays is wrong
    in the first digit.
    """
    if int(offsets[-1]) != len(optical_depth):
        raise ValueError(f'offsets must end at {len(optical_depth)}, the '
                         f'number of segments, got {int(offsets[-1])}')
    total = F.pad(optical_depth.double().cumsum(0), (1, 0))
    base = total[offsets[:-1]]
    entry = total[:-1] - torch.repeat_interleave(
        base, offsets.diff(), output_size=len(optical_depth))
    leave = total[offsets[1:]] - base
    return ((-entry).exp().to(optical_depth.dtype),
            (-leave).exp().to(optical_depth.dtype))


def termination(optical_depth: Tensor,
                offsets: Tensor) -> Tuple[Tensor, Tensor]:
    """Probability that each ray ends in each of its segments.

    Args:
        optical_depth: Density times length of each segment, >= 0, (M,).
        offsets: First segment of each ray and M at the end, int64, (R + 1,).

    Returns:
        Weights, (M,), and the no-hit probability, (R,). Weights of a ray and
        its no-hit probability sum to 1.

    RadOcc section 3.2.
    """
    entry, no_hit = segment_transmittance(optical_depth, offsets)
    return entry * -torch.expm1(-optical_depth), no_hit


def expected_depth(optical_depth: Tensor, weights: Tensor, near: Tensor,
                   far: Tensor, offsets: Tensor) -> Tensor:
    """Expected ray parameter of the termination, accumulated.

    Inside a segment the light decays exponentially, so the mean is taken in
    closed form, not at the middle. The result is not divided by the opacity:
    a ray that hits nothing has depth 0.

    Args:
        optical_depth: (M,).
        weights: Termination weights, (M,).
        near: Ray parameter at the entry of each segment, (M,).
        far: Ray parameter at its exit, (M,).
        offsets: (R + 1,).

    Returns:
        Depth in units of the ray parameter, (R,).
    """
    # Mean position in the segment as a fraction of it, given that the ray
    # ends there: 1/tau - 1/(e^tau - 1); its series below 1e-2. The second
    # term underflows before e^tau can overflow.
    safe = optical_depth.clamp_min(1e-2)
    fraction = torch.where(
        optical_depth > 1e-2,
        1 / safe - 1 / torch.expm1(safe.clamp_max(60)),
        0.5 - optical_depth / 12)
    position = near + (far - near) * fraction
    return sum_rays(weights * position, offsets)


def sum_rays(values: Tensor, offsets: Tensor) -> Tensor:
    """Sum of the segments of each ray: (M,) -> (R,)."""
    ray = torch.repeat_interleave(
        torch.arange(len(offsets) - 1, device=offsets.device),
        offsets.diff(),
        output_size=len(values))
    return values.new_zeros(len(offsets) - 1).index_add(0, ray, values)


def accumulate(weights: Tensor, values: Tensor, voxel: Tensor,
               offsets: Tensor) -> Tensor:
    """Weighted sum of voxel values along each ray.

    Differentiable in ``weights`` and ``values``. Never builds an (M, C)
    array: forward and both gradients are sparse-times-dense products.

    Args:
        weights: Termination weights, (M,).
        values: Values of the voxels, (V, C).
        voxel: Row of ``values`` that each segment crosses, int64, (M,).
        offsets: (R + 1,).

    Returns:
        Rendered values, (R, C).
    """
    return _Accumulate.apply(weights, values, voxel, offsets)


class _Accumulate(torch.autograd.Function):

    @staticmethod
    def forward(ctx, weights, values, voxel, offsets):
        ctx.save_for_backward(weights, values, voxel, offsets)
        return F.embedding_bag(
            voxel,
            values,
            offsets,
            mode='sum',
            per_sample_weights=weights,
            include_last_offset=True)

    @staticmethod
    def backward(ctx, grad):
        weights, values, voxel, offsets = ctx.saved_tensors
        grad = grad.contiguous()
        grad_weights = grad_values = None
        if ctx.needs_input_grad[0]:
            # Only the entries of grad @ values.T that a ray really crosses.
            pattern = torch.sparse_csr_tensor(
                offsets,
                voxel,
                torch.zeros_like(weights),
                size=(len(offsets) - 1, len(values)),
                check_invariants=False)
            grad_weights = torch.sparse.sampled_addmm(
                pattern, grad, values.t(), beta=0.0).values()
        if ctx.needs_input_grad[1]:
            # The transposed product: one bag of rays for each voxel.
            order = voxel.argsort()
            ray = torch.repeat_interleave(
                torch.arange(len(offsets) - 1, device=voxel.device),
                offsets.diff(),
                output_size=len(voxel))
            rays_before = F.pad(
                torch.bincount(voxel, minlength=len(values)).cumsum(0), (1, 0))
            grad_values = F.embedding_bag(
                ray[order],
                grad,
                rays_before,
                mode='sum',
                per_sample_weights=weights[order],
                include_last_offset=True)
        return grad_weights, grad_values, None, None
