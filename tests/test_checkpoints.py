"""Weights load whole, whatever wraps them, or not at all."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from torch import nn

from radocc_plugin.checkpoints import load_weights, plain_keys
from radocc_plugin.evaluation.testing import load_strictly
from tests.support.models import ROOT


class Net(nn.Sequential):
    """A convolution, a norm and a linear layer."""

    def __init__(self):
        super().__init__(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Linear(3, 2))


def save(path, state, whole=True):
    torch.save(dict(state_dict=state, meta={}) if whole else state, path)
    return str(path)


def assert_loaded(model, state):
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize(
    'wrap',
    [
        lambda key: key,
        lambda key: f'module.{key}',
        lambda key: f'model.{key}',
        lambda key: f'ema_{key}',
        lambda key: f'module.model.{key}',
        lambda key: f'model.module.{key}',
    ],
    ids=['plain', 'ddp', 'lightning', 'ema', 'ddp of a model', 'model of ddp'],
)
@pytest.mark.parametrize('whole', [True, False])
def test_weights_load_behind_any_wrapper(tmp_path, wrap, whole):
    source = Net().state_dict()
    path = save(tmp_path / 'file.pth', {wrap(key): value for key, value in source.items()}, whole)
    model = Net()
    load_weights(model, path)
    assert_loaded(model, source)


def test_averages_load_as_models(tmp_path):
    source = Net()
    average = ExponentialMovingAverage(source, update_buffers=True)
    model = Net()
    load_weights(model, save(tmp_path / 'mmengine.pth', average.state_dict()))
    assert_loaded(model, source.state_dict())
    # mmcv 1 keeps the other weights beside the average
    state = source.state_dict()
    both = {**state, **{f'ema_{key.replace(".", "_")}': torch.zeros(1) for key in state}}
    model = Net()
    load_weights(model, save(tmp_path / 'mmcv.pth', both))
    assert_loaded(model, state)


def test_a_wrappers_name_that_the_model_has_itself_stays():
    own = {'model.weight': 0, 'steps': 1}
    assert plain_keys(dict(own), own) == own
    assert plain_keys({f'module.{key}': value for key, value in own.items()}, own) == own


def broken():
    """A state with one key missing, one unexpected and one mis-shaped."""
    state = dict(Net().state_dict())
    del state['0.bias']
    state['extra.weight'] = torch.zeros(2)
    state['2.weight'] = torch.zeros(2, 4)
    return state


def test_one_message_has_all_names(tmp_path):
    path = save(tmp_path / 'other.pth', broken())
    with pytest.raises(ValueError) as error:
        load_weights(Net(), path)
    message = str(error.value)
    for text in (
        'other.pth does not fit Net',
        '0.bias',
        'extra.weight',
        '2.weight',
        '--allow-partial',
    ):
        assert text in message


def test_what_fits_is_loaded_on_request(tmp_path):
    state = broken()
    model = Net()
    kept = model[2].weight.clone()
    load_weights(model, save(tmp_path / 'other.pth', state), allow_partial=True)
    assert torch.equal(model[0].weight, state['0.weight'])
    assert torch.equal(model[2].weight, kept)


def test_a_file_may_lack_what_is_optional_only(tmp_path):
    state = Net().state_dict()
    del state['2.weight'], state['2.bias']
    path = save(tmp_path / 'half.pth', state)
    load_weights(Net(), path, optional=['2.'])
    with pytest.raises(ValueError, match='2.weight'):
        load_weights(Net(), path, optional=['0.'])


def test_the_test_command_refuses_what_does_not_fit(tmp_path):
    path = ROOT / 'tools/test.py'
    spec = importlib.util.spec_from_file_location('test_tool', path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    hooks = []
    runner = SimpleNamespace(model=Net(), call_hook=lambda name, **kwargs: hooks.append(name))
    file = save(tmp_path / 'other.pth', broken())
    with pytest.raises(ValueError, match='other.pth does not fit Net'):
        load_strictly(runner, file)
    load_strictly(runner, file, allow_partial=True)
    assert hooks == ['after_load_checkpoint'] * 2
    args = ['config.py', 'other.pth']
    assert not tool.parse_args(args).allow_partial
    assert tool.parse_args([*args, '--allow-partial']).allow_partial
