"""The definition in float64 under plain autograd: the oracle."""

from typing import Tuple

import torch
from torch import Tensor

from radocc_plugin.rendering.density import (  # noqa: F401 - of every backend
    chunked_density,
)
from radocc_plugin.rendering.functional import (
    MAX_OPTICAL_DEPTH,
    expected_depth,
    packed_ray_kl,
    crossing_transmittance,
    sum_rays,
    termination,
)
from radocc_plugin.rendering.render_geometry import RenderGeometry


def render(
    density: Tensor, values: Tensor, geometry: RenderGeometry
) -> Tuple[Tensor, Tensor, Tensor]:
    """See ``ops.render``; differentiable, in float64."""
    crossings = geometry.walk(density.double().dtype)
    optical_depth = density.double()[crossings.voxel] * crossings.length
    optical_depth = optical_depth.clamp_max(MAX_OPTICAL_DEPTH)
    weights, no_hit = termination(optical_depth, crossings.offsets)
    depth = expected_depth(optical_depth, crossings.near, crossings.far, crossings.offsets)
    rendered = sum_rays(weights[:, None] * values.double()[crossings.voxel], crossings.offsets)
    return depth, rendered, no_hit


def ray_kl(teacher_density: Tensor, student_density: Tensor, geometry: RenderGeometry) -> Tensor:
    """See ``ops.ray_kl``; differentiable in the student, in float64."""
    crossings = geometry.walk(student_density.double().dtype)
    teacher, student = (
        (d.double()[crossings.voxel] * crossings.length).clamp_max(MAX_OPTICAL_DEPTH)
        for d in (teacher_density.detach(), student_density)
    )
    return packed_ray_kl(teacher, student, crossings.offsets)


def voxel_light(density: Tensor, geometry: RenderGeometry) -> Tuple[Tensor, Tensor]:
    """See ``ops.voxel_light``; in float64."""
    crossings = geometry.walk(density.double().dtype)
    optical_depth = density.double()[crossings.voxel] * crossings.length
    entry, _ = crossing_transmittance(optical_depth.clamp_max(MAX_OPTICAL_DEPTH), crossings.offsets)
    weights = entry * -torch.expm1(-optical_depth)
    entered, ended = (
        torch.zeros_like(density.double()).index_add_(0, crossings.voxel, x)
        for x in (entry, weights)
    )
    return entered, ended
