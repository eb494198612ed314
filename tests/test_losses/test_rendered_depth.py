import pytest
import torch

from radocc_plugin.losses import ray_kl
from radocc_plugin.rendering import termination

OFFSETS = torch.tensor([0, 4, 4, 9])


def depths(seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(9, generator=generator, dtype=dtype) * 2 + 0.01


def naive_kl(teacher, student):
    """KL of the explicit distributions with the no-hit bin."""
    out = []
    weights = [termination(x, OFFSETS) for x in (teacher, student)]
    for ray in range(3):
        own = slice(OFFSETS[ray], OFFSETS[ray + 1])
        p, q = (torch.cat((w[own], no_hit[ray:ray + 1]))
                for w, no_hit in weights)
        out.append((p * (p / q).log()).sum())
    return torch.stack(out)


def test_equals_the_kl_of_the_distributions():
    teacher, student = depths(0), depths(1)
    torch.testing.assert_close(
        ray_kl(teacher, student, OFFSETS), naive_kl(teacher, student))


def test_equal_renders_cost_nothing():
    teacher = depths(0).requires_grad_()
    student = depths(0).requires_grad_()
    loss = ray_kl(teacher, student, OFFSETS)
    torch.testing.assert_close(loss, torch.zeros_like(loss))
    loss.sum().backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(student))
    assert teacher.grad is None


def test_gradient_passes_gradcheck_and_equals_its_closed_form():
    teacher, student = depths(0), depths(1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s: ray_kl(teacher, s, OFFSETS), student)
    ray_kl(teacher, student, OFFSETS).sum().backward()
    # dKL/dtau_k = T_{k+1} - w_k e_k / (1 - e_k), facts of the closed form
    weights, _ = termination(teacher, OFFSETS)
    entry = weights / (1 - (-teacher).exp())
    survive = (-student.detach()).exp()
    expected = entry * (-teacher).exp() - weights * survive / (1 - survive)
    torch.testing.assert_close(student.grad, expected)


def test_extreme_volumes_are_finite():
    for teacher, student in [(0., 1e4), (1e4, 0.), (0., 0.), (1e4, 1e4)]:
        student = torch.full((9, ), student).requires_grad_()
        loss = ray_kl(torch.full((9, ), teacher), student, OFFSETS)
        loss.sum().backward()
        assert bool(loss.isfinite().all()), (teacher, student)
        assert bool(student.grad.isfinite().all()), (teacher, student)


def test_a_later_wall_costs_more_than_no_difference_in_depth_alone():
    """A student that is unsure pays although its mean depth is right."""
    offsets = torch.tensor([0, 5])
    wall = torch.tensor([0., 0, 50, 0, 0])
    unsure = torch.tensor([0., 0.7, 0.7, 50, 0])
    sharp, blurred = (ray_kl(wall, s, offsets) for s in (wall, unsure))
    assert float(sharp) < 1e-4 < 0.5 < float(blurred)


def test_shapes_that_disagree_are_named():
    with pytest.raises(ValueError, match='student_optical_depth'):
        ray_kl(torch.ones(3), torch.ones(4), torch.tensor([0, 3]))
