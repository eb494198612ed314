"""Class weights of the models' cross entropies, taken out again."""

import pytest
import torch
import torch.nn.functional as F
from tests.test_distillation.toy_distillation import TAP, batch_of, distilled

from radocc_plugin.distillation.calibration import (
    class_frequency_logits,
    fit_free_odds,
    free_log_odds,
    with_free_odds,
)
from radocc_plugin.registry import MODELS

WEIGHT = [4.0, 2.0, 8.0, 0.5]


def test_the_minimum_of_a_weighted_cross_entropy_shows_the_frequencies():
    frequency = torch.tensor([0.05, 0.1, 0.15, 0.7])
    logits = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100)

    def loss():
        optimizer.zero_grad()
        value = -(frequency * torch.tensor(WEIGHT) * F.log_softmax(logits, -1)).sum()
        value.backward()
        return value

    optimizer.step(loss)
    calibrated = class_frequency_logits(logits.detach(), WEIGHT, -1, 'student')
    torch.testing.assert_close(calibrated.softmax(-1), frequency, rtol=0, atol=1e-4)
    assert calibrated[-1] == logits[-1]


def losses_of(student_weight=None, teacher_weight=None, **options):
    torch.manual_seed(0)
    config = distilled(**options)
    config['student_tap'] = dict(TAP, class_weight=student_weight)
    config['teacher'] = dict(config['teacher'], tap=dict(TAP, class_weight=teacher_weight))
    model = MODELS.build(config)
    inputs, samples = batch_of()
    losses = model(inputs, samples, mode='loss')
    return {name: loss.item() for name, loss in losses.items()}


@pytest.mark.parametrize('weights', [(WEIGHT, None), (None, WEIGHT)])
def test_weights_of_either_model_change_only_what_is_rendered(weights):
    plain, calibrated = losses_of(), losses_of(*weights)
    assert plain['loss_occ'] == calibrated['loss_occ']
    assert plain['loss_rdc'] != calibrated['loss_rdc']
    assert plain['loss_rsc_kl'] != calibrated['loss_rsc_kl']


def test_calibration_can_be_switched_off():
    assert losses_of(WEIGHT, WEIGHT, calibrate=False) == losses_of()


def test_equal_weights_change_nothing():
    assert losses_of([3.0] * 4, [0.1] * 4) == pytest.approx(losses_of())


def labelled_odds(scale, shift, count=20000):
    """Log-odds that over- or understate labels drawn with other ones."""
    generator = torch.Generator().manual_seed(0)
    odds = 3 * torch.randn(count, generator=generator, dtype=torch.double)
    probability = (scale * odds + shift).sigmoid()
    return odds, torch.rand(count, generator=generator, dtype=torch.double) < probability


@pytest.mark.parametrize('scale, shift', [(1.0, 0.0), (0.4, -1.5), (2.5, 1.0), (0.1, 3.0)])
def test_fitted_odds_are_those_that_the_labels_were_drawn_with(scale, shift):
    odds, is_free = labelled_odds(scale, shift)
    counts = torch.ones_like(odds)
    found = torch.stack(fit_free_odds(odds, is_free, counts))
    torch.testing.assert_close(found, torch.tensor((scale, shift)).double(), rtol=0.1, atol=0.1)
    # where the likelihood is flat: mean and covariance of the model are those of the labels
    error = (found[0] * odds + found[1]).sigmoid() - is_free.double()
    assert error.mean().abs() < 1e-3 and (error * odds).mean().abs() < 1e-3
    # what does not count changes nothing
    more = torch.cat((odds, -odds)), torch.cat((is_free, is_free))
    masked = fit_free_odds(*more, torch.cat((counts, 0 * counts)))
    torch.testing.assert_close(torch.stack(masked), found)


@pytest.mark.parametrize('free', [True, False])
def test_odds_of_one_class_or_of_none_stay_finite(free):
    odds = torch.linspace(-40, 40, 9)
    for weight in (torch.ones(9), torch.zeros(9)):
        found = torch.stack(fit_free_odds(odds, torch.full((9,), free), weight))
        assert found.isfinite().all()
    assert found.tolist() == [1, 0]  # without voxels
    perfect = torch.stack(fit_free_odds(odds, odds > 0, torch.ones(9)))
    assert perfect.isfinite().all() and perfect[0] > 0


@pytest.mark.parametrize('free', [0, -1])
def test_new_odds_leave_the_other_classes_among_themselves(free):
    logits = torch.randn(3, 4)
    moved = with_free_odds(logits, torch.tensor(0.5), torch.tensor(2.0), free)
    torch.testing.assert_close(free_log_odds(moved, free), 0.5 * free_log_odds(logits, free) + 2.0)
    others = [i for i in range(4) if i != free % 4]
    assert torch.equal(moved[:, others], logits[:, others])


def test_fitted_calibration_changes_what_is_rendered_and_needs_labels():
    plain, fitted = losses_of(WEIGHT), losses_of(WEIGHT, calibrate='fit')
    assert plain['loss_occ'] == fitted['loss_occ']
    assert plain['loss_rdc'] != fitted['loss_rdc']
    with pytest.raises(ValueError, match='calibrate takes one of'):
        losses_of(calibrate='always')
    torch.manual_seed(0)
    model = MODELS.build(distilled(calibrate='fit'))
    inputs, samples = batch_of()
    outputs = model.teacher.outputs(inputs, samples, torch.device('cpu'))
    for sample in samples:  # as a frame between keyframes has them
        sample.gt_occ.semantics.fill_(255)
        sample.gt_occ.mask_camera.fill_(False)
    with pytest.raises(ValueError, match='takes a labelled frame in every batch'):
        model.consistency(outputs, outputs, samples)
    for sample in samples:
        del sample.gt_occ
    with pytest.raises(ValueError, match="calibrate='fit' needs gt_occ"):
        model.consistency(outputs, outputs, samples)


@pytest.mark.parametrize(
    'weight, message',
    [
        ([1.0, 0.0, 1.0, 1.0], 'tap.class_weight takes positive numbers'),
        ([1.0] * 3, 'class_weight of the student takes 4 numbers, .* got 3'),
    ],
)
def test_wrong_weights_are_named(weight, message):
    with pytest.raises(ValueError, match=message):
        losses_of(weight)
