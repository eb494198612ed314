import pytest
import torch

from radocc_plugin.geometry import Cameras, Rays, draw_rays, lidar_pixels

SIZE = (6, 10)
LOOK_FORWARD = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0.05], [0, -1, 0, 0.7], [0, 0, 0, 1]])
LOOK_BACK = torch.diag(torch.tensor([-1.0, -1, 1, 1])) @ LOOK_FORWARD


def rig(batch=2, image_size=(18, 32)):
    cam2img = torch.tensor([[20.0, 0, 16], [0, 20, 9], [0, 0, 1]])
    return Cameras(
        cam2img.expand(batch, 2, 3, 3),
        torch.stack((LOOK_FORWARD, LOOK_BACK)).expand(batch, 2, 4, 4),
        torch.eye(4).expand(batch, 4, 4),
        image_size,
    )


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def flat(rays: Rays):
    return (rays.sample * 2 + rays.camera) * SIZE[0] * SIZE[1] + rays.pixel


def inputs_of(sampler):
    if sampler == 'lidar':
        cloud = torch.rand(400, 5, generator=seeded(3)) * 20 - 10
        return dict(points=[cloud, cloud[:100]])
    if sampler == 'segments':
        maps = torch.randint(0, 5, (2, 2, 9, 16), generator=seeded(4))
        return dict(segments=maps)
    return {}


@pytest.mark.parametrize('sampler', ['random', 'grid', 'lidar', 'segments'])
def test_draws_are_distinct_sorted_repeatable_and_capped(sampler):
    draws = [
        flat(
            draw_rays(
                rig(), SIZE, sampler, max_rays=50, generator=seeded(seed), **inputs_of(sampler)
            )
        ).tolist()
        for seed in (0, 0, 1)
    ]
    assert len(draws[0]) == 50 and draws[0] == sorted(set(draws[0]))
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize('sampler', ['random', 'grid'])
def test_without_a_cap_every_pixel_gets_a_ray(sampler):
    rays = draw_rays(rig(), SIZE, sampler)
    assert flat(rays).tolist() == list(range(2 * 2 * 60))


def test_a_capped_grid_is_evenly_spaced():
    index = flat(draw_rays(rig(), SIZE, 'grid', max_rays=60, generator=seeded()))
    assert set(index.diff().tolist()) == {4}


def test_few_random_rays_of_many_pixels_are_uniform():
    rays = draw_rays(rig(1), (300, 400), max_rays=4000, generator=seeded())
    assert len(rays) == 4000
    share = (rays.camera == 0).float().mean()
    assert abs(float(share) - 0.5) < 5 * 0.5 / 4000**0.5


def test_lidar_rays_are_those_of_the_returns():
    """Projected one point at a time, by hand."""
    cameras = rig(1)
    cloud = torch.rand(300, 3, generator=seeded(5)) * 12 - 6
    expected = set()
    for point in cloud:
        for camera, cam2ego in enumerate((LOOK_FORWARD, LOOK_BACK)):
            x, y, z, _ = (torch.linalg.inv(cam2ego) @ torch.cat((point, torch.ones(1)))).tolist()
            u, v = 20 * x / z + 16, 20 * y / z + 9
            if 1 <= z <= 45 and 0 <= u < 32 and 0 <= v < 18:
                expected.add((camera * 6 + int(v * 6 / 18)) * 10 + int(u * 10 / 32))
    assert len(expected) > 20
    found = lidar_pixels(cameras, SIZE, [cloud])
    assert found.tolist() == sorted(expected)
    assert flat(draw_rays(cameras, SIZE, 'lidar', points=[cloud])).tolist() == found.tolist()


def test_segments_get_about_equally_many_rays_whatever_their_size():
    maps = torch.ones(1, 2, 60, 100, dtype=torch.long)
    maps[:, :, :, 50:] = 2
    maps[:, :, 40:, 90:] = 3  # 1/30 of the image
    maps[:, 1, :20] = 0
    rays = draw_rays(rig(1), (60, 100), 'segments', max_rays=300, segments=maps, generator=seeded())
    ids = rays.gather_maps(maps)
    assert int((ids == 0).sum()) == 0
    count = torch.bincount(rays.camera * 4 + ids, minlength=8)
    count = count[[1, 2, 3, 5, 6, 7]]
    assert int(count.sum()) == 300
    assert int(count.min()) > 20 and int(count.max()) < 80


def test_ids_of_two_images_are_two_segments():
    maps = torch.ones(1, 2, 6, 10, dtype=torch.long)
    maps[0, 1, :, 1:] = 0  # the same id with a tenth of the pixels
    rays = draw_rays(rig(1), SIZE, 'segments', max_rays=10, segments=maps, generator=seeded())
    assert int((rays.camera == 1).sum()) >= 2


@pytest.mark.parametrize(
    'sampler, inputs',
    [
        ('lidar', dict(points=[torch.zeros(0, 4), torch.zeros(0, 4)])),
        ('segments', dict(segments=torch.zeros(2, 2, 9, 16, dtype=torch.long))),
    ],
)
def test_where_no_pixel_qualifies_there_are_no_rays(sampler, inputs):
    assert len(draw_rays(rig(), SIZE, sampler, max_rays=9, **inputs)) == 0


def test_rigs_with_images_of_several_sizes():
    sizes = torch.tensor([[[18, 32], [18, 32]], [[36, 64], [18, 32]]])
    mixed = draw_rays(rig(2, sizes), SIZE)
    small = draw_rays(rig(2), SIZE)
    other = (mixed.directions - small.directions).abs().sum(-1) > 1e-6
    twice = (mixed.sample == 1) & (mixed.camera == 0)
    assert bool((other <= twice).all()) and int(other.sum()) == 60


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(sampler='halton'), 'ray_sampler'),
        (dict(sampler='lidar'), 'LiDAR'),
        (dict(sampler='lidar', points=[torch.zeros(1, 3)]), 'points'),
        (dict(sampler='segments'), 'LoadSegments'),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        draw_rays(rig(), SIZE, **options)
