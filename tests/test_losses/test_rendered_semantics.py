import pytest
import torch
import torch.nn.functional as F

from radocc_plugin.geometry import Rays
from radocc_plugin.losses import (
    DistillBatch,
    class_kl,
    group_rays,
    pixel_affinity_distance,
    segment_affinity_distance,
    segment_means,
)
from radocc_plugin.losses.segment_affinity import draw_pairs
from radocc_plugin.registry import MODELS

KINDS = dict(l1=torch.abs, l2=torch.square)


def renders(num=40, classes=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(num, classes, generator=generator, dtype=torch.float64)
    teacher = torch.randn(num, classes, generator=generator, dtype=torch.float64)
    image = torch.arange(num) % 2
    group = torch.randint(0, 5, (num,), generator=generator) * 2 + image
    group[::9] = -1
    return student.requires_grad_(), teacher.requires_grad_(), group, image


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def cosine_gap(a, b):
    """Difference of the cosines of (student, teacher) pairs of vectors."""
    return F.cosine_similarity(a[0], b[0], 0) - F.cosine_similarity(a[1], b[1], 0)


def large_groups(group, min_rays):
    return [i for i in group.unique().tolist() if i >= 0 and (group == i).sum() >= min_rays]


def naive_segment_distance(student, teacher, group, image, min_rays, kind):
    pairs = []
    ids = large_groups(group, min_rays)
    for a in ids:
        for b in ids:
            if a != b and image[group == a][0] == image[group == b][0]:
                means = [[f[group == g].mean(0) for f in (student, teacher)] for g in (a, b)]
                pairs.append(KINDS[kind](cosine_gap(*means)))
    return torch.stack(pairs).mean()


def naive_pixel_distance(student, teacher, group, min_rays, kind):
    segments = []
    for own in large_groups(group, min_rays):
        rays = (group == own).nonzero().flatten().tolist()
        segments.append(
            torch.stack(
                [
                    KINDS[kind](cosine_gap((student[a], teacher[a]), (student[b], teacher[b])))
                    for a in rays
                    for b in rays
                    if a < b
                ]
            ).mean()
        )
    return torch.stack(segments).mean()


@pytest.mark.parametrize('min_rays', [2, 4])
@pytest.mark.parametrize('kind', ['l1', 'l2'])
def test_affinity_distances_equal_loops_over_pairs(min_rays, kind):
    student, teacher, group, image = renders()
    torch.testing.assert_close(
        segment_affinity_distance(student, teacher, group, image, min_rays, kind),
        naive_segment_distance(student, teacher, group, image, min_rays, kind),
    )
    torch.testing.assert_close(
        pixel_affinity_distance(student, teacher, group, seeded(), min_rays, 100, kind),
        naive_pixel_distance(student, teacher, group, min_rays, kind),
    )


def test_affinities_do_not_feel_the_length_of_the_semantics():
    student, teacher, group, image = renders()
    length = torch.rand(40, 1, dtype=torch.float64) + 0.5
    torch.testing.assert_close(
        pixel_affinity_distance(student * length, teacher, group, seeded()),
        pixel_affinity_distance(student, teacher, group, seeded()),
    )
    torch.testing.assert_close(
        segment_affinity_distance(student * 3, teacher, group, image),
        segment_affinity_distance(student, teacher, group, image),
    )


def test_rays_that_see_nothing_have_bounded_gradients():
    _, teacher, group, image = renders()
    student = torch.full((40, 6), 1e-9).requires_grad_()
    for loss in (
        segment_affinity_distance(student, teacher.float(), group, image),
        pixel_affinity_distance(student, teacher.float(), group, seeded()),
    ):
        (grad,) = torch.autograd.grad(loss, student)
        assert float(grad.abs().max()) < 1


def test_equal_renders_cost_nothing():
    student, _, group, image = renders()
    for loss in (
        segment_affinity_distance(student, student, group, image),
        pixel_affinity_distance(student, student, group, seeded()),
        class_kl(student, student),
    ):
        assert float(loss.detach()) == pytest.approx(0, abs=1e-12)


def test_gradients_reach_the_student_only_and_pass_gradcheck():
    student, teacher, group, image = renders(20)

    def loss(s):
        return (
            segment_affinity_distance(s, teacher, group, image)
            + pixel_affinity_distance(s, teacher, group, seeded(), 2, 3)
            + class_kl(s, teacher, 2.0)
        )

    loss(student).backward()
    assert teacher.grad is None and bool((student.grad != 0).any())
    assert torch.autograd.gradcheck(loss, student)


def test_rays_without_a_segment_do_not_count():
    student, teacher, group, image = renders()
    other = student.detach().clone()
    other[group < 0] += 5
    torch.testing.assert_close(
        segment_affinity_distance(other, teacher, group, image),
        segment_affinity_distance(student, teacher, group, image),
    )
    torch.testing.assert_close(
        pixel_affinity_distance(other, teacher, group, seeded()),
        pixel_affinity_distance(student, teacher, group, seeded()),
    )


@pytest.mark.parametrize(
    'group',
    [
        torch.full((40,), -1),
        torch.zeros(40, dtype=torch.long),
        torch.arange(40),
        torch.arange(40) % 2,
    ],
)
def test_without_pairs_the_loss_is_a_connected_zero(group):
    student, teacher, _, image = renders()
    image = group % 2  # two segments never share an image
    loss = segment_affinity_distance(student, teacher, group, image)
    if len(group.unique()) in (40,) or bool((group < 0).all()):
        loss = loss + pixel_affinity_distance(student, teacher, group, seeded())
    loss.backward()
    assert float(loss.detach()) == 0 and bool((student.grad == 0).all())


def test_without_rays_the_losses_are_connected_zeros():
    student = torch.zeros(0, 6, requires_grad=True)
    none = torch.zeros(0, dtype=torch.long)
    loss = (
        segment_affinity_distance(student, student, none, none)
        + pixel_affinity_distance(student, student, none, seeded())
        + class_kl(student, student)
    )
    loss.backward()
    assert float(loss.detach()) == 0


def test_small_segments_are_dropped():
    features = torch.eye(5)
    means, ray = segment_means(features, torch.tensor([3, 3, 7, -1, 3]), min_rays=2)
    assert ray.tolist() == [0]
    torch.testing.assert_close(means, torch.tensor([[1.0, 1, 0, 0, 1]]) / 3)


def test_few_pairs_are_all_taken_and_many_are_capped():
    group = torch.tensor([7, 2, 7, -1, 2, 7, 7, 9, 7])
    one, other, row, pairs = draw_pairs(group, 2, 4, seeded())
    # Segment 2 has one pair, 7 has ten, 9 has one ray.
    assert pairs.tolist() == [1, 4] and row.tolist() == [0, 1, 1, 1, 1]
    assert {int(one[0]), int(other[0])} == {1, 4}
    assert bool((group[one] == group[other]).all())
    assert bool((one != other).all())
    one, other, _, pairs = draw_pairs(group, 2, 10, seeded())
    assert pairs.tolist() == [1, 10]
    assert len({frozenset(p) for p in zip(one.tolist(), other.tolist())}) == 11
    assert draw_pairs(group, 3, 10, seeded())[3].tolist() == [10]


def test_pairs_of_a_huge_segment_are_drawn_evenly():
    rays, draws = 80000, 20000
    one, other, _, _ = draw_pairs(torch.zeros(rays, dtype=torch.long), 2, draws, seeded())
    assert bool((one > other).all()) and int(other.min()) >= 0
    assert int(one.max()) < rays
    # Of two different rays the later one lies at 2/3 on average, the earlier
    # one at 1/3, both with a deviation of sqrt(1/18).
    tolerance = 5 * (1 / 18 / draws) ** 0.5
    assert float(one.double().mean()) / rays == pytest.approx(2 / 3, abs=tolerance)
    assert float(other.double().mean()) / rays == pytest.approx(1 / 3, abs=tolerance)


def test_pairs_depend_on_their_generator_alone():
    group = torch.zeros(50, dtype=torch.long)
    state = torch.get_rng_state()
    draws = [draw_pairs(group, 2, 9, seeded(seed))[0] for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_rays_are_grouped_by_the_segment_of_their_own_image():
    index = torch.arange(8)
    rays = Rays(torch.zeros(8, 3), torch.zeros(8, 3), index // 4, index // 2 % 2, index % 2, (1, 2))
    # Twice the size of the render: one ray a 1 x 2 block of labels.
    segments = torch.tensor([[[[1, 1, 2, 2]], [[1, 1, 1, 1]]], [[[0, 0, 2, 2]], [[2, 2, 0, 0]]]])
    group, image = group_rays(rays, segments)
    assert image.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert (group < 0).tolist() == [0, 0, 0, 0, 1, 0, 0, 1]
    # Same label, other image: another segment.
    assert len(set(group[group >= 0].tolist())) == 5
    assert group[2] == group[3]


def test_ray_weights_weigh_the_kl():
    student, teacher, _, _ = renders()
    weight = torch.zeros(40, dtype=torch.float64)
    weight[3] = 0.2
    torch.testing.assert_close(
        class_kl(student, teacher, weight=weight), class_kl(student[3:4], teacher[3:4])
    )


@pytest.mark.parametrize('affinity', ['segments', 'pixels'])
@pytest.mark.parametrize('features, feels', [('centred', False), ('logits', True)])
def test_a_constant_on_all_logits_changes_no_centred_affinity(
    make_render, affinity, features, feels
):
    loss = MODELS.build(
        dict(
            type='radocc_plugin.RenderedSemanticConsistency',
            affinity=affinity,
            affinity_features=features,
            kl_weight=0.0,
        )
    )
    student, teacher = torch.randn(2, 32, 4, generator=seeded())
    segments = torch.randint(0, 4, (2, 2, 4, 8), generator=seeded(1))
    depth = torch.full((160,), 2.0)

    def value(shift):
        batch = DistillBatch(segments=segments, generator=seeded())
        return loss(make_render(depth, student + shift), make_render(depth, teacher), batch)[
            'loss_rsc_affinity'
        ]

    assert torch.isclose(value(5.0), value(0.0), atol=1e-5) != feels


def test_shapes_that_disagree_are_named():
    student, teacher, group, image = renders()
    for arguments, name in [
        ((teacher[:5], group, image), 'teacher'),
        ((teacher, group[:5], image), 'group'),
        ((teacher, group, image[:5]), 'image'),
    ]:
        with pytest.raises(ValueError, match=f'{name} takes shape'):
            segment_affinity_distance(student, *arguments)


@pytest.mark.parametrize(
    'kwargs, field',
    [
        (dict(affinity='classes'), 'affinity'),
        (dict(distance='cosine'), 'distance'),
        (dict(min_rays=0), 'min_rays'),
        (dict(temperature=0.0), 'temperature'),
        (dict(kl_weight=0.0, affinity_weight=0.0), 'kl_weight'),
    ],
)
def test_wrong_arguments_are_named(kwargs, field):
    with pytest.raises(ValueError, match=f'RenderedSemanticConsistency.{field}'):
        MODELS.build(dict(type='RenderedSemanticConsistency', **kwargs))
