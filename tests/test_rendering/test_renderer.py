import math

import pytest
import torch

from radocc_plugin.geometry import Cameras
from radocc_plugin.registry import MODELS
from radocc_plugin.rendering import density_from_logits

RANGE = (-8., -8., -1., 8., 8., 2.2)
SHAPE = (20, 20, 4)


def cameras(batch=1):
    cam2ego = torch.tensor([[0., 0, 1, 0], [-1, 0, 0, 0.05],
                            [0, -1, 0, 0.7], [0, 0, 0, 1]])
    cam2img = torch.tensor([[20., 0, 16], [0, 20, 9], [0, 0, 1]])
    return Cameras(
        cam2img.expand(batch, 1, 3, 3), cam2ego.expand(batch, 1, 4, 4),
        torch.eye(4).expand(batch, 4, 4), (18, 32))


def build(**kwargs):
    return MODELS.build(
        dict(
            type='radocc_plugin.VolumeRenderer',
            point_cloud_range=RANGE,
            render_size=(6, 10),
            **kwargs))


def test_labels_render_like_logits_of_the_same_density():
    generator = torch.Generator().manual_seed(0)
    labels = torch.where(
        torch.rand(2, *SHAPE, generator=generator) < 0.05,
        torch.randint(0, 3, (2, *SHAPE), generator=generator),
        torch.tensor(3))
    # An occupied voxel of optical depth 2 is free with probability e^-2.
    probability = torch.nn.functional.one_hot(labels, 4).float()
    occupied = labels != 3
    probability[occupied] *= 1 - math.exp(-2)
    probability[..., 3][occupied] = math.exp(-2)
    renderer = build()
    geometry = renderer.trace(cameras(2), SHAPE)
    a = renderer((probability + 1e-30).log(), geometry)
    b = renderer.render_labels(labels, geometry, 4)
    torch.testing.assert_close(a.no_hit, b.no_hit)
    torch.testing.assert_close(a.depth, b.depth, rtol=1e-4, atol=1e-4)
    assert torch.equal(
        a.semantics.argmax(1)[a.no_hit < 0.5],
        b.semantics.argmax(1)[b.no_hit < 0.5])
    assert 0.1 < float((b.no_hit < 0.5).float().mean()) < 1


def test_depth_of_a_solid_is_the_centre_of_its_first_voxel():
    labels = torch.full((1, *SHAPE), 3)
    labels[:, 15:] = 0
    cube = build()
    geometry = cube.trace(cameras(), SHAPE)
    depth = cube.render_labels(labels, geometry, 4).depth_given_hit
    straight = 2 * 10 + 5  # pixel row 2, column 5: nearly along ego x
    assert float(depth[straight]) == pytest.approx(4 + 0.4, abs=0.02)


def test_batch_renders_as_its_samples():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, *SHAPE, 4, generator=generator)
    renderer = build()
    both = renderer(logits, renderer.trace(cameras(2), SHAPE))
    geometry = renderer.trace(cameras(1), SHAPE)
    for i in range(2):
        single = renderer(logits[i:i + 1], geometry)
        half = len(single.depth)
        torch.testing.assert_close(both.depth[i * half:(i + 1) * half],
                                   single.depth)
        torch.testing.assert_close(both.semantics[i * half:(i + 1) * half],
                                   single.semantics)


def test_free_probability_is_the_chance_to_cross_a_voxel():
    logits = torch.randn(5, 4)
    density = density_from_logits(logits, 0.4)
    torch.testing.assert_close((-density * 0.4).exp(),
                               logits.softmax(-1)[:, 3])
    softplus = density_from_logits(logits, 0.4, 3, 'softplus')
    torch.testing.assert_close(softplus,
                               torch.nn.functional.softplus(-logits[:, 3]))


def test_renders_in_float32_inside_autocast():
    renderer = build()
    logits = torch.randn(1, *SHAPE, 4)
    geometry = renderer.trace(cameras(), SHAPE)
    plain = renderer(logits, geometry)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = renderer(logits, geometry)
    assert inside.depth.dtype == torch.float32
    assert torch.equal(inside.depth, plain.depth)


def test_voxels_that_no_ray_meets_get_no_gradient():
    renderer = build()
    logits = torch.randn(1, *SHAPE, 4, requires_grad=True)
    geometry = renderer.trace(cameras(), SHAPE)
    render = renderer(logits, geometry)
    (render.depth.sum() + render.semantics.square().sum()).backward()
    touched = torch.zeros(logits[..., 0].numel(), dtype=torch.bool)
    touched[geometry.touched] = True
    moved = logits.grad.abs().sum(-1).flatten() > 0
    assert bool((moved & ~touched).sum() == 0) and int(moved.sum()) > 50


@pytest.mark.parametrize('kwargs, message', [
    (dict(density='exp'), 'density'),
    (dict(max_rays=0), 'max_rays'),
])
def test_bad_options_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


def test_volume_of_another_shape_is_named():
    renderer = build()
    geometry = renderer.trace(cameras(), SHAPE)
    with pytest.raises(ValueError, match='occ_logits'):
        renderer(torch.zeros(1, 20, 20, 5, 4), geometry)


def test_voxels_that_are_no_cubes_are_named():
    with pytest.raises(ValueError, match='cubic'):
        build().trace(cameras(), (20, 20, 8))
