"""The author's forms beside the published ones."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from radocc_plugin.losses import (
    class_kl,
    elementwise_semantic_kl,
    kd_kl_div,
    packed_double_softmax_kl,
)
from radocc_plugin.registry import MODELS
from radocc_plugin.rendering import packed_ray_kl

OFFSETS = torch.tensor([0, 4, 4, 9])


def packed(seed):
    """Weights (9,) and no-hit probabilities (3,) of three rays."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(9, generator=generator, dtype=torch.float64) / 5
    no_hit = [1 - weights[a:b].sum() for a, b in zip(OFFSETS[:-1], OFFSETS[1:])]
    return weights, torch.stack(no_hit)


def test_packed_form_equals_a_loop_over_rays():
    (student, student_no_hit), (teacher, teacher_no_hit) = packed(0), packed(1)
    rays = []
    for ray in range(3):
        own = slice(OFFSETS[ray], OFFSETS[ray + 1])
        rays.append(
            kd_kl_div(
                torch.cat((student[own], student_no_hit[ray : ray + 1]))[None],
                torch.cat((teacher[own], teacher_no_hit[ray : ray + 1]))[None],
                temperature=2.0,
            )
        )
    torch.testing.assert_close(
        packed_double_softmax_kl(student, teacher, student_no_hit, teacher_no_hit, OFFSETS, 2.0),
        torch.stack(rays).mean(),
    )


def test_registered_form_takes_rays_of_equal_samples_without_a_no_hit_bin():
    student, teacher = torch.rand(2, 6, 7).softmax(2)
    loss = MODELS.build(dict(type='RenderedDepthDoubleSoftmax', temperature=3.0))
    value = loss(SimpleNamespace(weights=student), SimpleNamespace(weights=teacher), batch=None)
    torch.testing.assert_close(
        value['loss_rdc_double_softmax'], 100 * kd_kl_div(student, teacher, 3.0)
    )


def test_packed_gradient_passes_gradcheck():
    leaves = [x.requires_grad_() for x in packed(0)]
    teacher, teacher_no_hit = packed(1)
    assert torch.autograd.gradcheck(
        lambda w, n: packed_double_softmax_kl(w, teacher, n, teacher_no_hit, OFFSETS, 1.0), leaves
    )


def peak(index, bins=287):
    """All the termination in one bin, packed, without a no-hit share."""
    return F.one_hot(torch.tensor(index), bins).float(), torch.zeros(1)


def test_double_softmax_nearly_kills_the_signal():
    """Two surfaces 4 m apart: 1.3e-5, where the divergence is unbounded.

    facts: two unit peaks in bins 100 and 120 of 287, temperature 10.
    """
    (student, no_hit), (teacher, _) = peak(120), peak(100)
    loss = kd_kl_div(student[None], teacher[None], 10.0)
    torch.testing.assert_close(loss, torch.tensor(1.3e-5), rtol=0.03, atol=0)
    offsets = torch.tensor([0, 287])
    # The no-hit bin changes little.
    torch.testing.assert_close(
        packed_double_softmax_kl(student, teacher, no_hit, no_hit, offsets), loss, rtol=0.01, atol=0
    )
    published = packed_ray_kl(50 * teacher, 50 * student, offsets)
    assert float(published) > 1e5 * float(loss)


def test_double_softmax_does_not_tell_where_the_surface_is():
    """A miss by one bin costs what a miss by a hundred bins costs."""
    teacher = peak(100)[0][None]
    near, far = (kd_kl_div(peak(100 + k)[0][None], teacher) for k in (1, 100))
    torch.testing.assert_close(near, far)


def test_elementwise_kl_is_the_ray_kl_over_the_classes():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 30, 17, generator=generator)
    torch.testing.assert_close(
        elementwise_semantic_kl(student, teacher) * 17, class_kl(student, teacher)
    )


def test_logits_kd_over_x_normalises_x_and_not_the_classes():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 1, 6, 5, 4, 3, generator=generator)
    loss = MODELS.build(dict(type='LogitsKDOverX', loss_weight=1.0, temperature=2.0))

    def value(student, teacher):
        return loss(student, teacher, batch=None)['loss_logits_kd_over_x']

    columns = (
        F.kl_div(
            (student[0] / 2).log_softmax(0), (teacher[0] / 2).softmax(0), reduction='none'
        ).mean(0)
        * 4
    )
    torch.testing.assert_close(value(student, teacher), columns.mean())
    # A number for each class of each column: the classes of a voxel change,
    # the loss does not.
    shift = torch.randn(1, 1, 5, 4, 3, generator=generator)
    torch.testing.assert_close(value(student + shift, teacher), value(student, teacher))
    assert float(class_kl((student + shift).flatten(0, 3), student.flatten(0, 3))) > 0.1
