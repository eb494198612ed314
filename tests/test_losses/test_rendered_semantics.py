import pytest
import torch
import torch.nn.functional as F

from radocc_plugin.losses import (segment_affinity_distance, segment_means,
                                  class_kl)


def renders(num=40, classes=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(
        num, classes, generator=generator, dtype=torch.float64)
    teacher = torch.randn(
        num, classes, generator=generator, dtype=torch.float64)
    image = torch.arange(num) % 2
    group = torch.randint(0, 5, (num, ), generator=generator) * 2 + image
    group[::9] = -1
    return student.requires_grad_(), teacher.requires_grad_(), group, image


def naive_distance(student, teacher, group, image, min_rays):
    pairs = []
    ids = [
        i for i in group.unique().tolist()
        if i >= 0 and (group == i).sum() >= min_rays
    ]
    for a in ids:
        for b in ids:
            same = image[group == a][0] == image[group == b][0]
            if a != b and same:
                cosine = [
                    F.cosine_similarity(f[group == a].mean(0),
                                        f[group == b].mean(0), 0)
                    for f in (student, teacher)
                ]
                pairs.append((cosine[0] - cosine[1]).abs())
    return torch.stack(pairs).mean()


@pytest.mark.parametrize('min_rays', [1, 4])
def test_affinity_distance_equals_a_loop_over_pairs(min_rays):
    student, teacher, group, image = renders()
    torch.testing.assert_close(
        segment_affinity_distance(student, teacher, group, image, min_rays),
        naive_distance(student, teacher, group, image, min_rays))


def test_equal_renders_cost_nothing():
    student, _, group, image = renders()
    distance = segment_affinity_distance(student, student, group, image)
    assert float(distance) == pytest.approx(0, abs=1e-12)
    assert float(class_kl(student, student)) == pytest.approx(0, abs=1e-12)


def test_gradients_reach_the_student_only_and_pass_gradcheck():
    student, teacher, group, image = renders(20)

    def loss(s):
        return segment_affinity_distance(
            s, teacher, group, image) + class_kl(s, teacher, 2.0)

    loss(student).backward()
    assert teacher.grad is None and bool((student.grad != 0).any())
    assert torch.autograd.gradcheck(loss, student)


def test_rays_without_a_segment_do_not_count():
    student, teacher, group, image = renders()
    before = segment_affinity_distance(student, teacher, group, image)
    other = student.detach().clone()
    other[group < 0] += 5
    torch.testing.assert_close(
        segment_affinity_distance(other, teacher, group, image), before)


@pytest.mark.parametrize('group', [
    torch.full((40, ), -1),
    torch.zeros(40, dtype=torch.long),
    torch.arange(40),
    torch.arange(40) % 2,
])
def test_without_pairs_the_loss_is_a_connected_zero(group):
    student, teacher, _, image = renders()
    image = group % 2  # two segments never share an image
    loss = segment_affinity_distance(student, teacher, group, image)
    loss.backward()
    assert float(loss) == 0 and bool((student.grad == 0).all())


def test_small_segments_are_dropped():
    features = torch.eye(5)
    means, ids = segment_means(
        features, torch.tensor([3, 3, 7, -1, 3]), min_rays=2)
    assert ids.tolist() == [3]
    torch.testing.assert_close(
        means, torch.tensor([[1., 1, 0, 0, 1]]) / 3)


def test_ray_weights_weigh_the_kl():
    student, teacher, _, _ = renders()
    weight = torch.zeros(40, dtype=torch.float64)
    weight[3] = 0.2
    torch.testing.assert_close(
        class_kl(student, teacher, weight=weight),
        class_kl(student[3:4], teacher[3:4]))


def test_shapes_that_disagree_are_named():
    student, teacher, group, image = renders()
    with pytest.raises(ValueError, match='student'):
        segment_affinity_distance(student, teacher[:5], group, image)
