"""The voxel form of the rendered consistencies: identities and weights."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from radocc_plugin.geometry import Rays, VoxelGrid
from radocc_plugin.losses import (
    DistillBatch,
    ModelOutputs,
    RenderedVoxelConsistency,
    voxel_kl,
    weighted_mean,
)
from radocc_plugin.losses.voxel_consistency import shuffled
from radocc_plugin.rendering import (
    RenderGeometry,
    VoxelLight,
    density_from_logits,
    termination,
    voxel_light,
)

SHAPE, CLASSES, FREE = (5, 4, 3), 6, 5
WEIGHTS = (3.0, 0.5, 2.0, 7.0, 1.0, 0.25)


def logits(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, *SHAPE, CLASSES, generator=generator, dtype=torch.double)


def batch(mask=None, light=None, labels=None):
    shape = (1, *SHAPE)
    light = torch.ones(shape).double() if light is None else light
    return DistillBatch(
        gt_occ=torch.zeros(shape).long() if labels is None else labels,
        mask_camera=torch.zeros(shape).bool() if mask is None else mask,
        light=VoxelLight(light, light),
    )


def value(loss, student, teacher, of=None, own=None, theirs=None):
    return loss(
        ModelOutputs(student, class_weight=own),
        ModelOutputs(teacher, class_weight=theirs),
        of or batch(),
    )['loss_voxel']


def test_weighted_by_light_it_is_the_divergence_of_the_rays():
    """Every ray runs through the middle of a row of voxels, so that all its
    crossings are whole edges, from both ends."""
    grid = VoxelGrid((0, 0, 0, 5, 4, 3), SHAPE)
    y, z = (
        x.flatten() for x in torch.meshgrid(torch.arange(4.0), torch.arange(3.0), indexing='ij')
    )
    origins, directions = [], []
    for start, step in ((-1.0, 1.0), (6.0, -1.0)):
        origins.append(torch.stack((torch.full_like(y, start), y + 0.5, z + 0.5), -1))
        directions.append(torch.tensor([step, 0, 0]).expand(len(y), 3))
    number = torch.arange(2 * len(y))
    rays = Rays(
        torch.cat(origins), torch.cat(directions), 0 * number, 0 * number, number, (1, len(number))
    )
    geometry = RenderGeometry(rays, grid, 1)
    student, teacher = (logits(i).flatten(0, 3) for i in (0, 1))
    entered, _ = voxel_light(density_from_logits(teacher, 1.0), geometry, backend='reference')

    # The oracle: every ray's joint distribution of voxel and class.
    walk = geometry.walk(torch.double)
    joint = []
    for model in (student, teacher):
        weights, no_hit = termination(
            density_from_logits(model, 1.0)[walk.voxel] * walk.length, walk.offsets
        )
        classes = model[:, :FREE].softmax(-1)[walk.voxel]
        joint.append((weights[:, None] * classes, no_hit))
    (own, own_miss), (target, target_miss) = joint
    oracle = (target * (target.log() - own.log())).sum() + (
        target_miss * (target_miss.log() - own_miss.log())
    ).sum()

    ours = (entered * voxel_kl(student, teacher)).sum()
    assert float(ours) == pytest.approx(float(oracle), rel=1e-5)


def test_class_balance_pulls_as_the_students_own_cross_entropy():
    """A teacher that is the label pulls as the label does."""
    loss = RenderedVoxelConsistency(cap=None)
    teacher = logits(1)  # trained with equal weights: class frequencies
    student = logits(0).requires_grad_()
    (own,) = torch.autograd.grad(value(loss, student, teacher, own=WEIGHTS), student)
    target = teacher.softmax(-1) * torch.tensor(WEIGHTS).double()
    cross_entropy = -(target * student.log_softmax(-1)).sum() / target.sum()
    (expected,) = torch.autograd.grad(cross_entropy, student)
    torch.testing.assert_close(own, expected)


def test_class_weights_of_the_teacher_are_exchanged():
    loss = RenderedVoxelConsistency()
    shift = torch.tensor(WEIGHTS).double().log()
    student, teacher = logits(0), logits(1)
    expected = value(loss, student, teacher)
    both = value(loss, student + shift, teacher + shift, own=WEIGHTS, theirs=WEIGHTS)
    plain = RenderedVoxelConsistency(class_balance=False)
    torch.testing.assert_close(
        value(plain, student + shift, teacher, own=WEIGHTS),
        value(plain, student + shift, teacher + shift, own=WEIGHTS, theirs=WEIGHTS),
    )
    assert not torch.isclose(both, expected)


@pytest.mark.parametrize('cap, weight', [(None, (0, 1, 4)), (2.0, (0, 1, 2))])
def test_light_weighs_up_to_its_cap(cap, weight):
    light = torch.zeros(1, *SHAPE).double()
    light[0, 0, 0] = torch.tensor([0.4, 1, 4])
    student, teacher = logits(0), logits(1)
    each = voxel_kl(student[0, 0, 0], teacher[0, 0, 0])
    expected = weighted_mean(each, torch.tensor(weight).double())
    torch.testing.assert_close(
        value(RenderedVoxelConsistency(cap=cap), student, teacher, batch(light=light)), expected
    )


def test_labelled_frames_weigh_by_their_factor():
    student, teacher = logits(0), logits(1)
    mask = torch.zeros(1, *SHAPE).bool()
    mask[0, 0] = True
    loss = RenderedVoxelConsistency(labelled_factor=0.25)
    unlabelled = value(loss, student, teacher)
    torch.testing.assert_close(value(loss, student, teacher, batch(mask)), unlabelled / 4)
    visible = RenderedVoxelConsistency(observed='mask_camera')
    torch.testing.assert_close(
        value(visible, student, teacher, batch(mask)), voxel_kl(student[0, 0], teacher[0, 0]).mean()
    )
    torch.testing.assert_close(value(visible, student, teacher), unlabelled)


@pytest.mark.parametrize('factor', [0.0, 0.3, 2.0])
def test_the_free_part_weighs_by_its_factor(factor):
    """The generalised KL: parts that sum to the KL, minimal at the teacher."""
    student, teacher = logits(0).flatten(0, 3), logits(1).flatten(0, 3)
    p, q = teacher.softmax(-1), student.softmax(-1)
    parts = p * (p / q).log() - p + q
    torch.testing.assert_close(parts.sum(-1), voxel_kl(student, teacher))
    scale = torch.ones(CLASSES).double()
    scale[FREE] = factor
    torch.testing.assert_close(voxel_kl(student, teacher, FREE, factor), (scale * parts).sum(-1))
    own = teacher.clone().requires_grad_()
    found = voxel_kl(own, teacher, FREE, factor)
    (slope,) = torch.autograd.grad(found.sum(), own)
    torch.testing.assert_close(found, torch.zeros_like(found))
    torch.testing.assert_close(slope, torch.zeros_like(slope))
    loss = RenderedVoxelConsistency(free_factor=factor)
    torch.testing.assert_close(
        value(loss, logits(0), logits(1)), voxel_kl(student, teacher, FREE, factor).mean()
    )


def test_a_share_is_light_over_rays():
    """Whatever their number, half of the rays weigh half."""
    entered = torch.zeros(1, *SHAPE).double()
    entered[0, 0, 0] = torch.tensor([1.0, 50.0, 0.1])
    crossed = torch.zeros_like(entered)
    crossed[0, 0, 0] = torch.tensor([2.0, 200.0, 0.1])
    student, teacher = logits(0), logits(1)
    each = voxel_kl(student[0, 0, 0], teacher[0, 0, 0])
    lit = replace(batch(), light=VoxelLight(entered, entered, crossed))
    torch.testing.assert_close(
        value(RenderedVoxelConsistency(light='share'), student, teacher, lit),
        weighted_mean(each, torch.tensor((0.5, 0.25, 0)).double()),  # too little light: left out
    )
    with pytest.raises(ValueError, match='crossed=True'):
        value(RenderedVoxelConsistency(light='share'), student, teacher)


def test_shuffled_light_is_the_same_light_elsewhere():
    light = torch.zeros(2, *SHAPE)
    light[0, 0] = torch.rand(SHAPE[1:]) + 1
    dealt = shuffled(light, torch.Generator().manual_seed(0))
    for before, after in zip(light, dealt):
        torch.testing.assert_close(after.flatten().sort()[0], before.flatten().sort()[0])
    assert not torch.equal(dealt[0], light[0])
    loss = RenderedVoxelConsistency(light='shuffled')
    known = replace(batch(light=light[:1]), generator=torch.Generator().manual_seed(0))
    assert value(loss, logits(0), logits(1), known) > 0
    with pytest.raises(ValueError, match='RenderedVoxelConsistency needs generator'):
        value(loss, logits(0), logits(1))


def test_a_gate_keeps_what_the_teacher_has_right():
    student, teacher = logits(0), logits(1)
    labels = teacher.argmax(-1)
    labels[0, 0] = (labels[0, 0] + 1) % CLASSES
    loss = RenderedVoxelConsistency(gate=True)
    everywhere = torch.ones(1, *SHAPE).bool()
    torch.testing.assert_close(
        value(loss, student, teacher, batch(everywhere, labels=labels)),
        voxel_kl(student[0, 1:], teacher[0, 1:]).mean(),
    )
    hidden = everywhere.clone()
    hidden[0, 0] = False
    torch.testing.assert_close(
        value(loss, student, teacher, batch(hidden, labels=labels)),
        voxel_kl(student, teacher).mean(),
    )


def test_regions_count_alike():
    student, teacher = logits(0), logits(1)
    classes = teacher.argmax(-1)
    loss = RenderedVoxelConsistency(objects=(0, 1))
    each = voxel_kl(student, teacher)
    parts = [each[classes < 2], each[(classes >= 2) & (classes < FREE)], each[classes == FREE]]
    torch.testing.assert_close(value(loss, student, teacher), sum(x.mean() for x in parts) / 3)


def test_a_hard_teacher_is_a_label():
    student, teacher = logits(0), logits(1)
    torch.testing.assert_close(
        value(RenderedVoxelConsistency(hard=True), student.float(), teacher),
        F.cross_entropy(student.flatten(0, 3).float(), teacher.argmax(-1).flatten()),
        check_dtype=False,
    )


@pytest.mark.parametrize(
    'field, bad',
    [
        ('light', 'left'),
        ('observed', 'lidar'),
        ('cap', 0),
        ('min_light', -1),
        ('labelled_factor', -0.5),
    ],
)
def test_bad_arguments_are_named(field, bad):
    with pytest.raises(ValueError, match=f'{field} takes .*{bad}'):
        RenderedVoxelConsistency(**{field: bad})
