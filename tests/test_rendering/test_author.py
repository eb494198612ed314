import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.rendering import author_samples, render_like_author


def test_samples_of_the_author():
    grid = VoxelGrid((-40, -40, -1, 40, 40, 5.4), (200, 200, 16))
    assert author_samples(grid) == (287, pytest.approx(0.2))


def test_a_uniform_volume_renders_as_its_closed_form(geometry_of):
    """From the middle along an axis: as many samples as fit before the face;
    the step is that of the ray parameter."""
    geometry = geometry_of(2)
    geometry = replace(
        geometry,
        rays=replace(
            geometry.rays,
            origins=torch.tensor([[0.01, 0.0, 0.0], [0.01, 9.0, 0.0]]),
            directions=torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.0, 0.0]]),
        ),
    )
    number = len(geometry.crossings.voxel) and math.floor(1.99 / 0.4) + 1
    logits = torch.full((geometry.num_voxels,), -0.3, dtype=torch.float64)
    render = render_like_author(logits, torch.ones_like(logits)[:, None] * 7, geometry)
    passed = float(torch.exp(-F.softplus(logits[0]) * 0.2))
    opacity = 1 - passed**number
    assert render.no_hit.tolist() == pytest.approx([1 - opacity, 1])
    assert render.values[:, 0].tolist() == pytest.approx([7 * opacity, 0])
    assert float(render.depth[0]) == pytest.approx(
        sum((1 - passed) * passed**k * 0.2 * k for k in range(number))
    )
