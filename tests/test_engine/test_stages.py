"""Stages measured on a toy model with known times and sizes."""

import sys
import time

import pytest
import torch
from torch import nn

from radocc_plugin.engine import StageMeter, find_stages
from radocc_plugin.engine.profiler import peak_bytes

CPU = torch.device('cpu')


class Clock:
    """Stands still but for ``sleep``: a loaded machine changes nothing."""

    now = 0

    def sleep(self, seconds):
        self.now += seconds


CLOCK = Clock()


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(time, 'perf_counter', lambda: CLOCK.now)
    monkeypatch.setattr(time, 'process_time', lambda: 2 * CLOCK.now)


class Inner(nn.Module):
    def forward(self, x):
        CLOCK.sleep(40)
        return x


class Lift(nn.Module):
    def __init__(self):
        super().__init__()
        self.depth_net = Inner()

    def forward(self, x):
        CLOCK.sleep(20)
        return self.depth_net(self.depth_net(x))

    def loss(self, x):
        CLOCK.sleep(10)
        return x.sum()


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.data_preprocessor = nn.Identity()
        self.lift = Lift()
        self.head = nn.Linear(2, 2)

    def forward(self, x):
        return self.lift.loss(self.head(self.lift(x)))


def run(model, repeat=1):
    meter = StageMeter()
    for name, stage in find_stages(model, CPU).items():
        meter.watch(name, *stage)
    for _ in range(repeat):
        with meter.repetition():
            CLOCK.sleep(30)
            model(torch.ones(1, 2))
    meter.release()
    return meter.stages()


def test_a_stage_does_not_count_the_stages_inside():
    stages = run(Toy(), repeat=3)
    assert list(stages) == ['rest', 'lift', 'lift.depth_net', 'head', 'lift.loss']
    assert {name: stage.seconds for name, stage in stages.items()} == {
        'rest': 30,
        'lift': 20,
        'lift.depth_net': 80,
        'head': 0,
        'lift.loss': 10,
    }
    assert all(s.cpu_seconds == 2 * s.seconds for s in stages.values())
    assert stages['lift.depth_net'].calls == 2


def test_a_loss_may_be_a_method_or_a_module():
    model = Toy()
    model.head.loss = nn.MSELoss()
    stages = find_stages(model, CPU)
    assert stages['lift.loss'] == (model.lift, 'loss')
    assert stages['head.loss'] == (model.head.loss, 'forward')
    assert run(model)['rest'].calls == 1


def test_a_dictionary_of_modules_is_no_stage_but_its_modules_are():
    model = Toy()
    model.encoders = nn.ModuleDict(dict(camera=nn.ModuleDict(dict(neck=nn.Identity()))))
    stages = find_stages(model, CPU)
    neck = model.encoders['camera']['neck']
    assert stages['encoders.camera.neck'] == (neck, 'forward')
    assert 'encoders' not in stages


def test_the_median_is_of_the_repetitions():
    meter = StageMeter()
    for seconds in (1, 8, 3):
        with meter.repetition():
            CLOCK.sleep(seconds)
    assert meter.stages()['rest'].seconds == 3


def test_watched_methods_are_given_back_and_rest_when_idle():
    model = Toy()
    run(model)
    assert all('forward' not in vars(m) for m in model.modules())
    assert 'loss' not in vars(model.lift)
    meter = StageMeter()
    meter.watch('head', model.head)
    model(torch.ones(1, 2))  # outside a repetition nothing is counted
    assert meter.stages() == {}
    meter.release()


def test_an_error_inside_a_stage_closes_it():
    meter = StageMeter()
    with pytest.raises(RuntimeError):
        with meter.repetition(), meter.stage('broken'):
            raise RuntimeError
    with meter.repetition():
        pass
    assert meter.stages()['rest'].calls == 1


@pytest.mark.skipif(
    not sys.platform.startswith('linux') or peak_bytes(CPU) is None,
    reason='the system does not tell the peak of a process',
)
def test_the_peak_is_that_of_the_stage_and_of_those_around_it():
    size = 200 * 2**20
    meter = StageMeter()
    with meter.repetition():
        with meter.stage('outer'):
            with meter.stage('large'):
                torch.ones(size // 4)
            with meter.stage('small'):
                torch.ones(8)
    stages = meter.stages()
    for name in ('rest', 'outer', 'large'):
        rise = stages[name].peak - stages['small'].peak
        assert 0.9 * size < rise < 1.2 * size, name
