"""Class weights of the models' cross entropies, taken out again."""

import pytest
import torch
import torch.nn.functional as F
from tests.test_distillation.toy_distillation import TAP, batch_of, distilled

from radocc_plugin.distillation.distiller import class_frequency_logits
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
