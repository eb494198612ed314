"""The published moving average, alone and under the real Runner."""

import copy
import math
import uuid

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner, load_checkpoint
from torch import nn
from torch.utils.data import Dataset

from radocc_plugin.distillation import RadOccDistiller
from radocc_plugin.engine import MEGVIIEMA, MEGVIIEMAHook
from radocc_plugin.registry import HOOKS, MODELS


@pytest.fixture(scope='module')
def golden_case(golden):
    return golden.case('ema_megvii')


def test_golden_ema(golden, golden_case):
    starts = golden_case.config['init_updates']
    for init_updates in starts if isinstance(starts, list) else [starts]:
        check_golden_ema(golden, golden_case, init_updates)


def check_golden_ema(golden, case, init_updates):
    config, steps = case.config, case.config['steps']
    # a number of them, or those to report
    reported = config.get('report_steps', steps)
    steps = max(steps) if isinstance(steps, list) else steps
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    golden.fill_(model, config['weight_seed'])
    ema = MEGVIIEMA(model, config['decay'], init_updates=init_updates)
    for step in range(1, steps + 1):
        golden.fill_(model, config['weight_seed'] + step)
        model[1].num_batches_tracked.fill_(step)
        ema.update_parameters(model)
        if step in reported:
            for name, value in ema.module.state_dict().items():
                golden.compare(case, f'{init_updates}/step{step}/{name}', value)
    decays = [ema.decay_at(init_updates + step) for step in range(1, steps + 1)]
    golden.compare(case, f'decay/{init_updates}', np.array(decays))


@pytest.mark.parametrize(
    'settings', [dict(decay=1.0), dict(decay=0.0), dict(gamma=0), dict(init_updates=-1)]
)
def test_settings_out_of_range_are_named(settings):
    with pytest.raises(ValueError, match='MEGVIIEMA takes'):
        MEGVIIEMA(nn.Linear(1, 1), **settings)


class ToyModel(BaseModel):
    """A regression with batch norm; its initialisation is no default."""

    occ_tap = dict(module='head')

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8))
        self.head = nn.Linear(8, 1)

    def init_weights(self):
        nn.init.constant_(self.head.bias, 7.0)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        output = self.head(self.body(inputs))
        if mode == 'loss':
            return dict(loss=(output - inputs.sum(1, True)).square().mean())
        return output


class WrappedToy(RadOccDistiller):
    """The wrapper's checkpoints without its rendering."""

    def __init__(self):
        super().__init__(
            ToyModel(), teacher=dict(model=dict()), renderer=dict(type=nn.Identity), losses={}
        )

    def init_weights(self):
        self.student.init_weights()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.student(inputs, data_samples, mode=mode)


class Numbers(Dataset):
    metainfo = {}

    def __len__(self):
        return 12

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return dict(inputs=torch.randn(3, generator=generator))


def make_runner(work_dir, model, epochs=2, init_updates=10560, **kwargs):
    torch.manual_seed(0)
    return Runner(
        model=model(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=Numbers(),
            batch_size=4,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-2)),
        custom_hooks=[dict(type='radocc_plugin.MEGVIIEMAHook', init_updates=init_updates)],
        randomness=dict(seed=3),
        experiment_name=f'ema_{uuid.uuid4().hex}',
        log_level='ERROR',
        **kwargs,
    )


def hook_of(runner):
    return next(h for h in runner.hooks if isinstance(h, MEGVIIEMAHook))


def read(path):
    return torch.load(path, weights_only=False)


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=0, atol=0)


@pytest.mark.parametrize('model', [ToyModel, WrappedToy])
def test_checkpoints_hold_the_average_under_the_plain_students_keys(model, tmp_path):
    runner = make_runner(tmp_path, model)
    hook, states = hook_of(runner), []

    def record(method):

        def recorded(runner, *args, **kwargs):
            method(runner, *args, **kwargs)
            states.append(copy.deepcopy(runner.model.state_dict()))

        return recorded

    hook.before_train = record(hook.before_train)
    hook.after_train_iter = record(hook.after_train_iter)
    runner.train()
    # The published rule, from the weights that training starts from.
    expected, live = dict(states[0]), states[-1]
    for update, state in enumerate(states[1:], 10560 + 1):
        decay = 0.999 * (1 - math.exp(-update / 2000))
        for key, value in state.items():
            if value.is_floating_point():
                expected[key] = decay * expected[key] + (1 - decay) * value
    saved = read(tmp_path / 'epoch_2.pth')
    assert saved['state_dict'].keys() == ToyModel().state_dict().keys()
    for key, value in expected.items():
        torch.testing.assert_close(saved['state_dict'][key], value)
        torch.testing.assert_close(
            saved['ema_state_dict'][f'module.{key}'], live[key], rtol=0, atol=0
        )
    assert int(saved['ema_state_dict']['steps']) == 10560 + 6
    assert not torch.equal(live['head.weight'], expected['head.weight'])
    plain = ToyModel()
    load_checkpoint(plain, str(tmp_path / 'epoch_2.pth'), strict=True)
    assert_same(plain.state_dict(), dict(saved['state_dict']))


@pytest.mark.parametrize('init_updates', [0, 10560])
@pytest.mark.parametrize('model', [ToyModel, WrappedToy])
def test_a_resumed_run_equals_an_unbroken_one(model, init_updates, tmp_path):
    settings = dict(model=model, init_updates=init_updates)
    make_runner(tmp_path / 'whole', epochs=3, **settings).train()
    make_runner(tmp_path / 'parts', epochs=1, **settings).train()
    make_runner(tmp_path / 'parts', epochs=3, resume=True, **settings).train()
    whole, parts = (read(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'parts'))
    for field in ('state_dict', 'ema_state_dict'):
        assert_same(dict(whole[field]), dict(parts[field]))


@pytest.mark.parametrize('model', [ToyModel, WrappedToy])
def test_the_average_starts_from_the_initialised_weights(model, tmp_path):
    runner = make_runner(tmp_path, model)
    hook, seen = hook_of(runner), []
    hook.before_train_epoch = lambda r: seen.append(
        copy.deepcopy(hook.ema_model.module.state_dict())
    )
    runner.train()
    assert seen[0]['head.bias'] == 7
    assert hook.ema_model.init_updates == 10560


def official_file(path, prefix='', alone=False):
    """A file as BEVDet's ``MEGVIIEMAHook`` writes it."""
    torch.manual_seed(5)
    state = ToyModel().state_dict()
    named = {prefix + key: value for key, value in state.items()}
    torch.save(named if alone else dict(epoch=24, state_dict=named, updates=21000), path)
    return state


@pytest.mark.parametrize('kwargs', [dict(), dict(prefix='module.'), dict(alone=True)])
@pytest.mark.parametrize('model', [ToyModel, WrappedToy])
def test_an_official_ema_file_loads_into_model_and_average(model, kwargs, tmp_path):
    path = tmp_path / 'epoch_24_ema.pth'
    state = official_file(path, **kwargs)
    runner = make_runner(tmp_path / 'work', model, load_from=str(path))
    hook, seen = hook_of(runner), []
    hook.before_train_epoch = lambda r: seen.append(
        [copy.deepcopy(m.state_dict()) for m in (r.model, hook.ema_model.module)]
    )
    runner.train()
    for loaded in seen[0]:
        assert_same(dict(loaded), dict(state))


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_testing_sees_the_loaded_average(prefix, tmp_path):
    path = tmp_path / 'epoch_24_ema.pth'
    state = official_file(path, prefix)
    runner = make_runner(tmp_path / 'work', ToyModel, load_from=str(path))
    hook = hook_of(runner)
    runner.call_hook('before_run')
    runner.load_or_resume()
    hook.before_test_epoch(runner)
    assert_same(dict(runner.model.state_dict()), dict(state))
    hook.after_test_epoch(runner)
    assert_same(dict(runner.model.state_dict()), dict(state))


def test_validation_sees_the_average_and_training_goes_on_without(tmp_path):
    runner = make_runner(tmp_path, ToyModel)
    runner.train()
    hook = hook_of(runner)
    live = copy.deepcopy(runner.model.state_dict())
    average = copy.deepcopy(hook.ema_model.module.state_dict())
    hook.before_val_epoch(runner)
    assert_same(runner.model.state_dict(), average)
    hook.after_val_epoch(runner)
    assert_same(runner.model.state_dict(), live)


def test_the_published_schedule_is_in_the_config():
    config = Config.fromfile('configs/_base_/schedules/bevdet_24e.py')
    hook = HOOKS.build(config.custom_hooks[0])
    ema = MODELS.build(dict(hook.ema_cfg, model=nn.Linear(2, 2)))
    assert (ema.decay, ema.gamma, int(ema.steps)) == (0.999, 2000, 10560)
