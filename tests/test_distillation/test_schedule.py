"""Weights that change over the training."""

import json
import math

import pytest
import torch
from mmengine.logging import MessageHub

from radocc_plugin.distillation import WeightSchedule
from radocc_plugin.registry import MODELS
from tests.test_distillation.toy_distillation import (
    STUDENT,
    assert_same_weights,
    batch_of,
    distilled,
    train,
)


@pytest.mark.parametrize(
    'schedule, times, expected',
    [
        (dict(), (0, 7), (1, 1)),
        (dict(ramp=4), (0, 1, 2, 4, 9), (0, 0.25, 0.5, 1, 1)),
        (dict(start=2, ramp=4), (1, 2, 3, 6), (0, 0, 0.25, 1)),
        (dict(stop=5), (0, 4, 5, 6), (1, 1, 0, 0)),
        (dict(stop=6, decay=4), (2, 3, 4, 5, 6), (1, 0.75, 0.5, 0.25, 0)),
        (dict(ramp=4, shape='cosine'), (0, 1, 2, 4), (0, 0.5 - math.sqrt(2) / 4, 0.5, 1)),
    ],
)
def test_factors_follow_the_schedule(schedule, times, expected):
    schedule = WeightSchedule(**schedule)
    assert [schedule.factor(t) for t in times] == pytest.approx(expected)


@pytest.mark.parametrize(
    'schedule, message',
    [
        (dict(shape='step'), 'shape.*linear.*cosine'),
        (dict(ramp=-1), 'ramp'),
        (dict(decay=3), 'stop'),
        (dict(start=2, ramp=3, decay=2, stop=6), 'stop.*7'),
    ],
)
def test_schedules_that_cannot_be_are_named(schedule, message):
    with pytest.raises(ValueError, match=message):
        WeightSchedule(**schedule)


def test_unknown_loss_of_a_schedule_is_named():
    with pytest.raises(ValueError, match=r"schedules.*depth.*'rdc'"):
        MODELS.build(distilled(schedules=dict(rdc=dict(ramp=1))))


def test_epochs_are_counted_in_fractions():
    hub = MessageHub.get_current_instance()
    for name, value in dict(iter=5, max_iters=20, max_epochs=2).items():
        hub.update_info(name, value)
    assert WeightSchedule(ramp=1, by_epoch=True).now() == 0.5
    assert WeightSchedule(ramp=10).now() == 0.5


def test_epochs_without_a_runner_are_an_error():
    hub = MessageHub.get_instance('no_runner')
    MessageHub._instance_dict.clear()
    with pytest.raises(ValueError, match='by_epoch'):
        WeightSchedule(ramp=1, by_epoch=True).now()
    assert hub.get_info('max_iters') is None


def logged(work_dir):
    (file,) = work_dir.glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [row for row in rows if 'loss' in row]


def test_weights_are_logged_and_a_stopped_loss_shows_0(tmp_path, teacher):
    train(
        tmp_path,
        distilled(
            teacher,
            rsc=0.5,
            schedules=dict(depth=dict(ramp=2), semantics=dict(stop=1, by_epoch=True)),
        ),
        log_processor=dict(window_size=1),
    )
    rows = logged(tmp_path)
    assert [r['distill/weight_depth'] for r in rows] == [0, 0.5, 1, 1, 1, 1]
    assert [r['distill/weight_semantics'] for r in rows] == [0.5] * 3 + [0] * 3
    assert all((row['loss_rsc_kl'] == 0) == (i >= 3) for i, row in enumerate(rows))
    assert all(row['loss_occ'] > 0 for row in rows)


def test_stopped_losses_leave_the_student_to_itself(tmp_path, teacher):
    """Stopped from the start is plain training, and builds no teacher."""
    never = dict(stop=0)
    config = distilled(
        'no/such/file.pth', feature=1.0, schedules=dict(depth=never, semantics=never, feature=never)
    )
    wrapped = train(tmp_path / 'ours', config)
    plain = train(tmp_path / 'plain', STUDENT)
    assert wrapped.teacher._model is None
    assert_same_weights(plain.state_dict(), wrapped.student.state_dict())


def test_a_resting_loss_changes_no_other_and_has_zero_gradients(teacher):
    """The rays and draws of RDC are those of RDC alone; DDP finds the
    adapter's gradient."""
    alone = MODELS.build(distilled(teacher, rsc=0.0)).eval()
    model = MODELS.build(
        distilled(
            teacher, feature=1.0, schedules=dict(semantics=dict(stop=0), feature=dict(start=5))
        )
    ).eval()
    model.load_state_dict(alone.state_dict(), strict=False)
    batch = batch_of()
    expected = alone(*batch, mode='loss')
    losses = model(*batch, mode='loss')
    assert torch.equal(losses['loss_rdc'], expected['loss_rdc'])
    sum(losses.values()).backward()
    adapter = model.losses['feature'].adapter
    assert adapter.weight.grad.abs().sum() == 0
