"""Renders made without a volume."""

from types import SimpleNamespace

import pytest
import torch

from radocc_plugin.geometry import Rays
from radocc_plugin.rendering import packed_ray_kl, termination


@pytest.fixture
def value_and_grad():
    """Value of a loss and its gradient with respect to its first tensor."""

    def run(function, tensor):
        tensor = tensor.clone().requires_grad_()
        loss = function(tensor)
        loss.backward()
        return loss.detach(), tensor.grad

    return run


@pytest.fixture
def make_render():
    """A render of 32 rays, 5 segments each, over two samples with two
    cameras, from optical depths (160,) and semantics (32, C)."""
    offsets = torch.arange(0, 161, 5)
    index = torch.arange(32)
    rays = Rays(
        torch.zeros(32, 3), torch.ones(32, 3), index // 16, index // 8 % 2, index % 8, (2, 4)
    )

    def make(optical_depth, semantics):
        weights, no_hit = termination(optical_depth, offsets)
        depth = (weights.view(32, 5) * torch.arange(1, 6).to(weights)).sum(1)
        return SimpleNamespace(
            optical_depth=optical_depth,
            weights=weights,
            ray_kl=lambda teacher: packed_ray_kl(
                teacher.optical_depth.detach(), optical_depth, offsets
            ),
            no_hit=no_hit,
            depth=depth,
            depth_given_hit=depth / (1 - no_hit),
            semantics=semantics,
            geometry=SimpleNamespace(rays=rays, crossings=SimpleNamespace(offsets=offsets)),
        )

    return make
