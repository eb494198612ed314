import copy
import math
import pickle

import pytest
import torch

from radocc_plugin.geometry import Cameras
from radocc_plugin.registry import MODELS
from radocc_plugin.rendering import density_from_logits, render
from tests.support.autocast import CPU_AUTOCAST

RANGE = (-8.0, -8.0, -1.0, 8.0, 8.0, 2.2)
SHAPE = (20, 20, 4)


def cameras(batch=1, image_size=(18, 32)):
    cam2ego = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0.05], [0, -1, 0, 0.7], [0, 0, 0, 1]])
    cam2img = torch.tensor([[20.0, 0, 16], [0, 20, 9], [0, 0, 1]])
    return Cameras(
        cam2img.repeat(batch, 1, 1, 1),
        cam2ego.repeat(batch, 1, 1, 1),
        torch.eye(4).repeat(batch, 1, 1),
        image_size,
    )


def build(**kwargs):
    return MODELS.build(
        dict(
            type='radocc_plugin.VolumeRenderer',
            point_cloud_range=RANGE,
            render_size=(6, 10),
            **kwargs,
        )
    )


def logits_of(batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *SHAPE, 4, generator=generator)


def some_labels(batch):
    generator = torch.Generator().manual_seed(0)
    return torch.where(
        torch.rand(batch, *SHAPE, generator=generator) < 0.05,
        torch.randint(0, 3, (batch, *SHAPE), generator=generator),
        torch.tensor(3),
    )


def test_labels_render_like_logits_of_the_same_density():
    labels = some_labels(2)
    # An occupied voxel of optical depth 2 is free with probability e^-2.
    probability = torch.nn.functional.one_hot(labels, 4).float()
    occupied = labels != 3
    probability[occupied] *= 1 - math.exp(-2)
    probability[..., 3][occupied] = math.exp(-2)
    renderer = build()
    geometry = renderer.trace(cameras(2), SHAPE)
    a = renderer((probability + 1e-30).log(), geometry)
    b = renderer.render_labels(labels, geometry, 4)
    torch.testing.assert_close(a.no_hit, b.no_hit, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(a.depth, b.depth, rtol=1e-4, atol=1e-3)
    assert torch.equal(a.semantics.argmax(1)[a.no_hit < 0.5], b.semantics.argmax(1)[b.no_hit < 0.5])
    assert 0.1 < float((b.no_hit < 0.5).float().mean()) < 1


def test_depth_of_a_solid_is_the_centre_of_its_first_voxel():
    labels = torch.full((1, *SHAPE), 3)
    labels[:, 15:] = 0
    cube = build()
    geometry = cube.trace(cameras(), SHAPE)
    depth = cube.render_labels(labels, geometry, 4).depth_given_hit
    straight = 2 * 10 + 5  # pixel row 2, column 5: nearly along ego x
    assert float(depth[straight]) == pytest.approx(4 + 0.4, abs=0.02)


def test_a_camera_inside_an_occupied_voxel_sees_that_voxel():
    labels = torch.full((1, *SHAPE), 3)
    labels[0, 10, 10, 2] = 1  # x 0..0.8, y 0..0.8, z 0.6..1.4
    renderer = build()
    render = renderer.render_labels(labels, renderer.trace(cameras(), SHAPE), 4)
    assert bool((render.depth_given_hit < 0.8).all())
    assert bool((render.no_hit < 1).all())
    assert set(render.semantics.argmax(1).tolist()) == {1}


def test_batch_renders_as_its_samples():
    rig = cameras(2)
    rig.cam2ego[1, 0, :3, 3] += 0.5
    rig.cam2img[1] *= torch.tensor([1.3, 1.3, 1])[:, None]
    rig = Cameras(rig.cam2img, rig.cam2ego, rig.bda_mat, torch.tensor([[[18, 32]], [[36, 48]]]))
    logits = logits_of(2)
    renderer = build()
    both = renderer(logits, renderer.trace(rig, SHAPE))
    half = len(both.depth) // 2
    for i in range(2):
        single = renderer(logits[i : i + 1], renderer.trace(rig.select(i), SHAPE))
        own = slice(i * half, (i + 1) * half)
        torch.testing.assert_close(both.depth[own], single.depth)
        torch.testing.assert_close(both.semantics[own], single.semantics)
        torch.testing.assert_close(both.no_hit[own], single.no_hit)


@pytest.mark.parametrize('density', ['free_probability', 'softplus'])
def test_backends_agree(density):
    logits = logits_of()
    results = []
    for backend in ('torch', 'auto'):
        renderer = build(backend=backend, density=density, min_transmittance=0.0)
        leaf = logits.clone().requires_grad_()
        geometry = renderer.trace(cameras(), SHAPE)
        out = renderer(leaf, geometry)
        teacher = renderer(logits_of(seed=1), geometry)
        kl = out.ray_kl(teacher)
        (out.depth.sum() + out.semantics.square().sum() + kl.sum()).backward()
        results.append((out.depth, out.semantics, out.no_hit, kl, leaf.grad))
    for got, want in zip(*results):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('backend', ['torch', 'auto'])
@pytest.mark.parametrize('options', [dict(), dict(density='head')])
def test_a_pair_is_the_teacher_and_the_student(backend, options):
    renderer = build(backend=backend, **options)
    geometry = renderer.trace(cameras(), SHAPE)
    volumes = logits_of(seed=1), logits_of()
    head = 'head' in options.values()
    heads = [x[..., 0] if head else None for x in volumes]
    results = []
    for together in (True, False):
        leaf = volumes[1].clone().requires_grad_()
        if together:
            teacher, student = renderer.render_pair(
                (volumes[0], heads[0]), (leaf, heads[1]), geometry
            )
        else:
            teacher, student = (renderer(x, geometry, h) for x, h in zip((volumes[0], leaf), heads))
        kl = student.ray_kl(teacher)
        loss = student.depth.sum() + student.semantics.square().sum()
        (loss + kl.sum()).backward()
        assert not teacher.depth.requires_grad
        results.append(
            (
                teacher.depth,
                teacher.semantics,
                student.depth,
                student.no_hit,
                student.density,
                kl,
                leaf.grad,
            )
        )
    for got, want in zip(*results):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_weights_and_no_hit_sum_to_one():
    renderer = build(density='softplus')
    geometry = renderer.trace(cameras(2), SHAPE)
    out = renderer(logits_of(2), geometry)
    total = torch.zeros_like(out.no_hit).index_add(0, geometry.crossings.ray, out.weights)
    torch.testing.assert_close(total + out.no_hit, torch.ones_like(total), rtol=0, atol=2e-4)


def test_a_density_head_takes_the_place_of_the_free_logit():
    renderer = build(density='head')
    geometry = renderer.trace(cameras(), SHAPE)
    logits = logits_of().requires_grad_()
    head = logits_of(seed=1)[..., 0].requires_grad_()
    out = renderer(logits, geometry, head)
    want = render(torch.nn.functional.softplus(head.flatten()), logits.flatten(0, 3), geometry)
    torch.testing.assert_close(out.depth, want[0])
    torch.testing.assert_close(out.semantics, want[1][:, :3])
    out.depth.sum().backward()
    assert bool(head.grad.any()) and logits.grad is None
    with pytest.raises(ValueError, match='density_logits'):
        renderer(logits, geometry)
    with pytest.raises(ValueError, match='density_logits'):
        build()(logits, geometry, head)


def test_free_probability_is_the_chance_to_cross_a_voxel():
    logits = torch.randn(5, 4)
    density = density_from_logits(logits, 0.4)
    torch.testing.assert_close((-density * 0.4).exp(), logits.softmax(-1)[:, 3])
    softplus = density_from_logits(logits, 0.4, 3, 'softplus')
    torch.testing.assert_close(softplus, torch.nn.functional.softplus(-logits[:, 3]))


@pytest.mark.parametrize('dtype', CPU_AUTOCAST)
def test_renders_in_float32_inside_autocast(dtype):
    renderer = build()
    logits = logits_of().to(dtype).requires_grad_()
    geometry = renderer.trace(cameras(), SHAPE)
    with torch.autocast('cpu', dtype=dtype):
        again = renderer.trace(cameras(), SHAPE)
    assert torch.equal(again.rays.directions, geometry.rays.directions)
    assert again.rays.directions.dtype == torch.float32
    plain = renderer(logits.float(), geometry)
    with torch.autocast('cpu', dtype=dtype):
        inside = renderer(logits, geometry)
        loss = inside.depth.sum() + inside.ray_kl(plain).sum()
    assert inside.depth.dtype == torch.float32
    assert torch.equal(inside.depth, plain.depth)
    loss.backward()
    assert logits.grad.dtype == dtype and bool(logits.grad.isfinite().all())


def test_without_rays_all_is_finite_and_connected():
    renderer = build(ray_sampler='lidar', density='softplus')
    geometry = renderer.trace(cameras(), SHAPE, points=[torch.zeros(0, 3)])
    logits = logits_of().requires_grad_()
    out = renderer(logits, geometry)
    loss = (
        out.depth.sum()
        + out.semantics.sum()
        + out.no_hit.sum()
        + out.ray_kl(out).sum()
        + out.weights.sum()
    )
    loss.backward()
    assert float(loss.detach()) == 0 and not bool(logits.grad.any())


def test_voxels_that_no_ray_meets_get_no_gradient():
    renderer = build()
    logits = logits_of().requires_grad_()
    geometry = renderer.trace(cameras(), SHAPE)
    out = renderer(logits, geometry)
    (out.depth.sum() + out.semantics.square().sum()).backward()
    touched = torch.zeros(logits[..., 0].numel(), dtype=torch.bool)
    touched[geometry.crossings.voxel] = True
    moved = logits.grad.abs().sum(-1).flatten() > 0
    assert bool((moved & ~touched).sum() == 0) and int(moved.sum()) > 50


def test_renders_of_other_rays_do_not_compare():
    renderer = build()
    a, b = (renderer(logits_of(), renderer.trace(cameras(), SHAPE)) for _ in range(2))
    with pytest.raises(ValueError, match='same rays'):
        a.ray_kl(b)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(density='exp'), 'density'),
        (dict(max_rays=0), 'max_rays'),
        (dict(backend='cuda'), 'backend'),
        (dict(ray_sampler='all'), 'ray_sampler'),
        (dict(min_transmittance=1.0), 'min_transmittance'),
    ],
)
def test_bad_options_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


def test_a_free_class_that_is_not_there_is_named():
    renderer = build(free_index=4)
    with pytest.raises(ValueError, match='free_index'):
        renderer(logits_of(), renderer.trace(cameras(), SHAPE))


def test_rays_that_are_not_finite_are_named():
    rig = cameras()
    rig.cam2ego[..., 0, 3] = float('nan')
    with pytest.raises(ValueError, match='finite'):
        build().trace(rig, SHAPE)


@pytest.mark.parametrize('sampler', ['random', 'grid'])
def test_rays_are_drawn_without_a_look_at_the_device(sampler):
    """Whose every look is a wait: a meta tensor has nothing to look at."""
    rig = cameras(2)
    there = Cameras(
        rig.cam2img.to('meta'), rig.cam2ego.to('meta'), rig.bda_mat.to('meta'), rig.image_size
    )
    renderer = build(ray_sampler=sampler, max_rays=50)
    geometry = renderer.trace(there, SHAPE, torch.Generator().manual_seed(0))
    assert geometry.rays.origins.is_meta and len(geometry.rays) == 50
    with pytest.raises((RuntimeError, NotImplementedError)):
        geometry.rays.sample.max().item()


def test_a_renderer_is_copied_and_pickled():
    renderer = build(ray_sampler='grid', max_rays=None)
    renderer.trace(cameras(), SHAPE)
    for other in (copy.deepcopy(renderer), pickle.loads(pickle.dumps(renderer))):
        depth = other(logits_of(), other.trace(cameras(), SHAPE)).depth
        torch.testing.assert_close(
            depth, renderer(logits_of(), renderer.trace(cameras(), SHAPE)).depth
        )


@pytest.mark.parametrize('shape', [(1, 20, 20, 5, 4), (2, *SHAPE, 4)])
def test_volumes_of_another_shape_are_named(shape):
    renderer = build()
    geometry = renderer.trace(cameras(), SHAPE)
    with pytest.raises(ValueError, match='occ_logits'):
        renderer(torch.zeros(shape), geometry)


def test_voxels_that_are_no_cubes_are_named():
    renderer = build()
    geometry = renderer.trace(cameras(), (20, 20, 8))
    with pytest.raises(ValueError, match='cubic'):
        renderer(torch.zeros(1, 20, 20, 8, 4), geometry)


def test_virtual_views_light_what_the_rig_does_not_see():
    """Behind an opaque wall: dark for the rig, lit from above."""
    labels = torch.full((1, *SHAPE), 3)
    labels[:, 15, :, :] = 0  # x = 4 m
    logits = 20.0 * torch.nn.functional.one_hot(labels, 4).float()
    reached = {}
    for views in (('sensor',), ('sensor', 'above')):
        renderer = build(views=views, max_rays=None)
        geometry = renderer.trace(cameras(), SHAPE)
        assert len(geometry.rays) == renderer.num_pixels(cameras()) == 60 * len(views)
        reached[views] = renderer.light(logits, geometry).entered[0, 16:, :, 1:].amax()
    assert reached['sensor',] < 1e-3
    assert reached['sensor', 'above'] > 0.1
    assert len(build(views=('above',)).trace_all(cameras(), SHAPE).rays) == 60  # pictures: the rig
    with pytest.raises(ValueError, match='views takes some of .* got'):
        build(views=('below',))


def test_rays_through_each_voxel_are_counted_on_demand():
    renderer = build(max_rays=None)
    geometry = renderer.trace(cameras(2), SHAPE)
    light = renderer.light(logits_of(2), geometry, crossed=True)
    count = torch.zeros(2 * math.prod(SHAPE)).index_add(
        0, geometry.crossings.voxel, torch.ones(len(geometry.crossings.voxel))
    )
    torch.testing.assert_close(light.crossed.flatten(), count)
    assert (light.entered <= light.crossed + 1e-4).all()
    plain = renderer.light(logits_of(2), geometry)
    assert plain.crossed is None and torch.equal(plain.entered, light.entered)
