"""Steps that are not finite leave nothing behind."""

import copy

import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

from radocc_plugin.engine import FiniteStepHook, intact_checkpoint
from radocc_plugin.registry import MODELS
from tests.test_distillation import toy_distillation
from tests.test_distillation.test_parallel import launch
from tests.test_distillation.toy_distillation import ToyOccStudent, assert_same_weights


@MODELS.register_module(force=True)
class FaultyStudent(ToyOccStudent):
    """Fails for some samples: the image, the loss, or only the gradient.

    Args:
        faults: Token to ``image``, ``loss`` or ``gradient``.
    """

    def __init__(self, faults, **kwargs):
        super().__init__(**kwargs)
        self.faults = faults
        self.forgot = 0

    def forget_non_finite(self):
        self.forgot += 1

    def forward(self, inputs, data_samples=None, mode='tensor'):
        kinds = {self.faults.get(s.metainfo['token']) for s in data_samples}
        if 'image' in kinds:
            inputs = dict(imgs=[x * torch.inf for x in inputs['imgs']])
        losses = super().forward(inputs, data_samples, mode)
        if 'loss' in kinds:
            # its gradient would be finite
            losses['loss_constant'] = torch.tensor(torch.inf)
        if 'gradient' in kinds:
            # 0 has no finite slope
            losses['loss_root'] = (self.head.bias * 0).abs().sum().sqrt()
        return losses


def student(**faults):
    return dict(
        type='radocc_plugin.FaultyStudent',
        faults={f'{int(name[1:]):04d}sample': kind for name, kind in faults.items()},
    )


class Recorder(FiniteStepHook):
    """Keeps what every iteration leaves."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.states = []

    def before_train_iter(self, runner, *args, **kwargs):
        super().before_train_iter(runner, *args, **kwargs)
        self.states.append(state_of(runner))
        self.runner = runner

    def after_train(self, runner):
        self.states.append(state_of(runner))


def state_of(runner):
    return copy.deepcopy((runner.model.state_dict(), runner.optim_wrapper.state_dict()))


def run(work_dir, model, hook=None, **kwargs):
    """Trains on samples in their order, a batch of four at a time."""
    return toy_distillation.run(
        work_dir, model, epochs=1, custom_hooks=[hook] if hook else [], **kwargs
    )


@pytest.fixture(autouse=True)
def in_order(monkeypatch):
    """Batches of four: 0 to 3, 4 to 7, 8 to 11."""
    from mmengine.dataset import DefaultSampler

    monkeypatch.setattr(DefaultSampler, '__iter__', lambda self: iter(range(len(self.dataset))))


def changed(states):
    """Whether each iteration changed weights, and optimiser."""
    result = []
    for (before, optimiser), (after, later) in zip(states, states[1:]):
        weights = any(not torch.equal(before[k], after[k]) for k in before)
        steps = str(optimiser['state']) != str(later['state'])
        assert weights == steps
        result.append(weights)
    return result


@pytest.mark.parametrize('kind', ['image', 'loss', 'gradient'])
def test_a_bad_step_leaves_weights_optimiser_and_statistics(tmp_path, kind):
    hook = Recorder()
    runner = run(tmp_path / 'run', student(_5=kind), hook)
    assert changed(hook.states) == [True, False, True]
    assert runner.message_hub.get_info('non_finite_steps') == 1
    assert all(v.isfinite().all() for v in runner.model.state_dict().values())
    assert runner.model.forgot == 1
    assert hook.in_a_row == 0


def test_finite_steps_are_what_they_were(tmp_path):
    plain = run(tmp_path / 'plain', student())
    checked = run(tmp_path / 'checked', student(), FiniteStepHook())
    assert_same_weights(plain.model.state_dict(), checked.model.state_dict())
    assert 'non_finite_steps' not in checked.message_hub.runtime_info


def test_too_many_in_a_row_stop_and_name_samples_and_loss(tmp_path):
    """Those between good steps do not add up."""
    hook = Recorder(max_skips=1)
    run(tmp_path / 'a', student(_0='loss', _8='loss'), hook)
    assert changed(hook.states) == [False, True, False]
    hook = Recorder(max_skips=1)
    with pytest.raises(
        FloatingPointError,
        match=r'iteration 3 .*2 in a row, 2 in all.*loss_constant; samples'
        ' 0008sample, 0009sample, 0010sample, 0011sample.*max_skips=1',
    ):
        run(tmp_path / 'b', student(_5='image', _9='loss'), hook)
    assert changed(hook.states) == [True, False]


def test_the_first_one_can_stop(tmp_path):
    with pytest.raises(FloatingPointError, match='the gradient; samples 0000'):
        run(tmp_path / 'run', student(_1='gradient'), FiniteStepHook(0))


def test_a_stop_keeps_the_last_good_checkpoint(tmp_path):
    work_dir = tmp_path / 'run'
    with pytest.raises(FloatingPointError):
        toy_distillation.run(
            work_dir,
            student(_8='image'),
            epochs=1,
            custom_hooks=[
                dict(type='radocc_plugin.FiniteStepHook', max_skips=0),
                dict(type='radocc_plugin.SafeCheckpointHook', interval=1, by_epoch=False),
            ],
        )
    path = intact_checkpoint(work_dir)
    assert path == str(work_dir / 'iter_2.pth')
    state = torch.load(path, weights_only=False)['state_dict']
    assert all(value.isfinite().all() for value in state.values())


def test_accumulated_gradients_are_one_step(tmp_path):
    """The good batch beside the bad one is skipped with it, and named."""
    hook = Recorder(max_skips=0)
    with pytest.raises(
        FloatingPointError, match='loss_constant; samples 0000sample.*0004sample.*0007sample'
    ):
        run(tmp_path / 'run', student(_0='loss'), hook, optim=dict(accumulative_counts=2))
    # batch norm has seen both batches, and has forgotten them
    assert_same_weights(state_of(hook.runner)[0], hook.states[0][0])


def test_all_processes_skip_what_one_of_them_meets(tmp_path):
    launch('tests.test_engine.finite_worker', 2, tmp_path)
    first, second = (torch.load(tmp_path / f'rank{i}.pth') for i in (0, 1))
    assert first['changed'] == second['changed'] == [True, False, True]
    assert_same_weights(first['weights'], second['weights'])
    assert first['log'] == second['log']
    assert '1 in all): loss; samples rank0, rank1' in first['log']


@OPTIM_WRAPPERS.register_module(force=True)
class CpuAmpWrapper(AmpOptimWrapper):
    """MMEngine's refuses to start without a GPU; only that is changed."""

    def __init__(self, **kwargs):
        OptimWrapper.__init__(self, **kwargs)
        self._scale_update_param = self.cast_dtype = None
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)


@pytest.mark.parametrize('clip', [None, dict(max_norm=5.0)])
def test_a_loss_scaler_learns_from_the_step_that_is_skipped(tmp_path, clip):
    hook = Recorder()
    runner = run(
        tmp_path / 'run',
        student(_5='image'),
        hook,
        optim=dict(type='CpuAmpWrapper', clip_grad=clip),
    )
    assert changed(hook.states) == [True, False, True]
    assert runner.optim_wrapper.loss_scaler.get_scale() == 512
    assert runner.message_hub.get_info('non_finite_steps') == 1


def test_settings_out_of_range_are_named():
    with pytest.raises(ValueError, match='max_skips >= 0, got -1'):
        FiniteStepHook(max_skips=-1)
