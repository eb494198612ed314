import math

import pytest
import torch
import torch.nn.functional as F

from radocc_plugin.label_space import UNLABELLED
from radocc_plugin.losses import (
    class_balanced_weights,
    focal_loss,
    geo_scal,
    lovasz_softmax,
    masked_cross_entropy,
    radial_weights,
    sem_scal,
)
from radocc_plugin.registry import MODELS
from tests.support.autocast import CPU_AUTOCAST

CLASSES, FREE = 5, 4
LOSSES = dict(
    cross_entropy=masked_cross_entropy,
    weighted_cross_entropy=lambda *args: masked_cross_entropy(
        *args, class_weight=torch.arange(1.0, 6).to(args[0].dtype)
    ),
    focal=focal_loss,
    lovasz=lovasz_softmax,
    lovasz_per_sample=lambda *args: lovasz_softmax(*args, per_sample=True),
    sem_scal=sem_scal,
    geo_scal=geo_scal,
)
every_loss = pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES.keys())


def volume(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, 3, 2, CLASSES, generator=generator, dtype=dtype)
    labels = torch.randint(0, CLASSES, (2, 4, 3, 2), generator=generator)
    mask = torch.rand(2, 4, 3, 2, generator=generator) < 0.5
    return logits.requires_grad_(), labels.to(torch.uint8), mask


def certain(labels, scale=100.0):
    """Logits that are sure of ``labels``."""
    return F.one_hot(labels.long(), CLASSES) * 2 * scale - scale


@pytest.mark.parametrize('weighted', [False, True])
def test_cross_entropy_equals_the_weighted_sum_over_visible_voxels(weighted):
    logits, labels, mask = volume()
    weight = torch.rand(5) if weighted else None
    each = F.cross_entropy(
        logits.flatten(0, -2), labels.flatten().long(), weight=weight, reduction='none'
    )
    counted = torch.ones(5) if weight is None else weight
    divisor = counted[labels[mask].long()].sum()
    expected = (each * mask.flatten()).sum() / divisor
    loss = masked_cross_entropy(logits, labels, mask, weight)
    torch.testing.assert_close(loss, expected)


@every_loss
def test_right_and_certain_logits_cost_next_to_nothing(loss):
    _, labels, mask = volume()
    value = float(loss(certain(labels), labels, mask))
    # The affinities stop 1e-5 short of 1, three terms of at most 2e-5.
    assert 0 <= value < 7e-5


@every_loss
def test_hidden_voxels_do_not_count(loss):
    logits, labels, mask = volume()
    value = loss(logits, labels, mask)
    value.backward()
    assert bool((logits.grad[~mask] == 0).all())
    assert bool((logits.grad[mask] != 0).any())
    changed = logits.detach().clone()
    changed[~mask] += 3
    other = labels.clone()
    other[~mask] = 255
    torch.testing.assert_close(loss(changed, other, mask), value)


@every_loss
@pytest.mark.parametrize('with_mask', [True, False])
def test_unlabelled_voxels_do_not_count(loss, with_mask):
    logits, labels, mask = volume()
    unlabelled = volume(1)[2]
    turned = labels.masked_fill(unlabelled, UNLABELLED)
    seen = mask & ~unlabelled if with_mask else ~unlabelled
    torch.testing.assert_close(
        loss(logits, turned, mask if with_mask else None), loss(logits, labels, seen)
    )
    nothing = torch.full_like(labels, UNLABELLED)
    assert float(loss(logits, nothing).detach()) == 0


def test_weights_of_unlabelled_voxels_do_not_count():
    logits, labels, mask = volume()
    weight = torch.rand(labels.shape)
    turned = labels.masked_fill(~mask, UNLABELLED)
    torch.testing.assert_close(
        focal_loss(logits, turned, voxel_weight=weight),
        focal_loss(logits, labels, mask, voxel_weight=weight),
    )


@every_loss
def test_empty_mask_is_a_connected_zero(loss):
    logits, labels, mask = volume()
    value = loss(logits, labels, torch.zeros_like(mask))
    value.backward()
    assert float(value.detach()) == 0 and bool((logits.grad == 0).all())


@every_loss
def test_gradient_passes_gradcheck(loss):
    logits, labels, mask = volume(dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels, mask), logits)


@every_loss
@pytest.mark.parametrize('dtype', CPU_AUTOCAST)
def test_autocast_computes_in_float32(loss, dtype):
    logits, labels, mask = volume()
    half = (logits.detach() * 50).to(dtype)
    with torch.autocast('cpu', dtype=dtype):
        value = loss(half, labels, mask)
    assert value.dtype == torch.float32 and bool(value.isfinite())
    torch.testing.assert_close(value, loss(half.float(), labels, mask), rtol=0, atol=0)


@every_loss
@pytest.mark.parametrize('field', ['labels', 'mask'])
def test_wrong_shapes_are_named(loss, field):
    logits, labels, mask = volume()
    arguments = dict(labels=labels, mask=mask)
    arguments[field] = arguments[field][:1]
    with pytest.raises(ValueError, match=f'{field} takes shape'):
        loss(logits, arguments['labels'], arguments['mask'])


@every_loss
def test_order_of_voxels_does_not_matter(loss):
    logits, labels, mask = volume()
    flipped = [x.flip(1, 2, 3) for x in (logits, labels, mask)]
    torch.testing.assert_close(loss(*flipped), loss(logits, labels, mask))


def test_lovasz_of_certain_logits_is_one_minus_the_mean_jaccard_index():
    _, labels, mask = volume()
    guess = volume(1)[1]
    expected = []
    for index in labels[mask].unique():
        both = ((guess == index) & (labels == index) & mask).sum()
        either = (((guess == index) | (labels == index)) & mask).sum()
        expected.append(1 - both / either)
    torch.testing.assert_close(
        lovasz_softmax(certain(guess), labels, mask), torch.stack(expected).mean()
    )


def scores(guess, truth):
    """Precision, recall and specificity of two masks."""
    return (
        (guess & truth).sum() / guess.sum(),
        (guess & truth).sum() / truth.sum(),
        (~guess & ~truth).sum() / (~truth).sum(),
    )


def test_affinities_of_certain_logits_are_logs_of_the_scores():
    labels = torch.tensor([0, 0, 1, 1, 1, FREE, FREE, FREE]).view(1, 2, 2, 2)
    guess = torch.tensor([0, 1, 1, 1, 0, FREE, 1, FREE]).view(1, 2, 2, 2)
    logits = certain(guess)
    terms = [sum(-math.log(x) for x in scores(guess == c, labels == c)) for c in (0, 1)]
    assert float(sem_scal(logits, labels)) == pytest.approx(sum(terms) / 2, rel=1e-4)
    assert float(sem_scal(logits, labels, void_index=0)) == pytest.approx(terms[1], rel=1e-4)
    expected = sum(-math.log(x) for x in scores(guess != FREE, labels != FREE))
    # Nothing occupied is missed: recall is 1 up to the 1e-5 of the losses.
    assert float(geo_scal(logits, labels)) == pytest.approx(expected, abs=1e-4)


def test_affinities_where_only_free_space_is_visible_are_finite():
    logits, labels, _ = volume()
    labels[:] = FREE
    assert float(sem_scal(logits, labels).detach()) == 0
    specificity = geo_scal(logits, labels)
    expected = -logits.softmax(-1)[..., FREE].mean().log()
    torch.testing.assert_close(specificity, expected, rtol=1e-4, atol=1e-5)


def test_focal_loss_without_focus_is_half_the_binary_cross_entropy():
    logits, labels, mask = volume()
    each = F.binary_cross_entropy_with_logits(
        logits, F.one_hot(labels.long(), CLASSES).float(), reduction='none'
    ).sum(-1)
    torch.testing.assert_close(
        focal_loss(logits, labels, mask, gamma=0.0, alpha=0.5), each[mask].mean() / 2
    )


def test_focal_weights_multiply_classes_and_voxels():
    logits, labels, mask = volume()
    weight = torch.eye(CLASSES)
    parts = [focal_loss(logits, labels, mask, row) for row in weight]
    torch.testing.assert_close(sum(parts), focal_loss(logits, labels, mask))
    by_voxel = torch.tensor([1.0, 0, 0, 0]).view(4, 1, 1)
    first = mask.clone()
    first[:, 1:] = False
    torch.testing.assert_close(
        focal_loss(logits, labels, mask, voxel_weight=by_voxel) * mask.sum(),
        focal_loss(logits, labels, first) * first.sum(),
    )


def test_class_balanced_weights_favour_rare_classes():
    weights = class_balanced_weights([10**3, 10**6], void_first=True)
    assert weights.tolist() == pytest.approx([0, 1 / math.log(1e3), 1 / math.log(1e6)], rel=1e-5)
    assert len(class_balanced_weights()) == 18
    with pytest.raises(ValueError, match='class_frequencies'):
        class_balanced_weights([0, 10])


def test_radial_weights_rise_from_one_to_two():
    weights = radial_weights((6, 4))
    assert float(weights[3, 2]) == 1 and float(weights[0, 0]) == 2
    assert float(weights.min()) == 1 and float(weights.max()) == 2


@pytest.mark.parametrize(
    'config, function',
    [
        (dict(type='OccCrossEntropy'), masked_cross_entropy),
        (dict(type='OccFocal', loss_weight=1.0), focal_loss),
        (dict(type='OccLovasz'), lovasz_softmax),
        (dict(type='OccSemScal'), sem_scal),
        (dict(type='OccGeoScal'), geo_scal),
    ],
)
def test_registered_losses_weigh_their_functions(config, function):
    loss = MODELS.build(dict(loss_weight=3.0) | config)
    torch.testing.assert_close(loss(*volume()), loss.loss_weight * function(*volume()))
    assert not loss.state_dict()


def test_registered_class_weights_are_used_or_named():
    weight = [0.1, 1, 2, 3, 4]
    loss = MODELS.build(dict(type='OccCrossEntropy', class_weight=weight))
    torch.testing.assert_close(
        loss(*volume()), masked_cross_entropy(*volume(), class_weight=torch.tensor(weight))
    )
    balanced = MODELS.build(dict(type='OccFocal', class_weight='balanced_with_void'))
    assert balanced.class_weight.shape == (19,)
    with pytest.raises(ValueError, match='OccFocal.class_weight'):
        MODELS.build(dict(type='OccFocal', class_weight='rare'))
