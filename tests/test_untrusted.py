"""What files of strangers may do: nothing but hold data."""

import io
import os
import pickle
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleLR
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

import radocc_plugin.registry  # noqa: F401, registers the reader
from radocc_plugin.checkpoints import load_weights
from radocc_plugin.datasets.info_file import load_infos
from radocc_plugin.distillation.teacher_cache import TeacherCache
from radocc_plugin.fileio import join_inside
from radocc_plugin.untrusted import TRUST


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def payloads(mark):
    """Ways to make ``mark`` when a pickle is read."""
    command = f'touch {mark}'
    code = f'open({str(mark)!r}, "w").close()'
    nested = io.BytesIO()
    torch.save(Calls(os.system, command), nested)
    return dict(
        system=Calls(os.system, command),
        eval=Calls(eval, code),
        exec=Calls(exec, code),
        getattr=Calls(getattr, HistoryBuffer, '__init__'),
        open=Calls(open, str(mark), 'w'),
        partial=Calls(__import__, 'os'),
        # reads a whole file of torch with full power
        storage=Calls(torch.storage._load_from_bytes, nested.getvalue()),
    )


KINDS = tuple(payloads('x'))
PLACES = dict(
    whole=lambda x: x,
    state=lambda x: dict(state_dict=OrderedDict(a=torch.zeros(1), b=x)),
    meta=lambda x: dict(state_dict={}, meta=dict(seed=x)),
    array=lambda x: dict(state_dict={}, meta=np.array([x, None], object)),
    hub=lambda x: dict(state_dict={}, message_hub=dict(log_scalars=OrderedDict(loss=x))),
)


@pytest.mark.parametrize('new', [True, False], ids=['zip', 'old format'])
@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('kind', KINDS)
def test_a_checkpoint_runs_no_code(tmp_path, kind, place, new):
    mark, path = tmp_path / 'mark', str(tmp_path / 'evil.pth')
    torch.save(PLACES[place](payloads(mark)[kind]), path, _use_new_zipfile_serialization=new)
    with pytest.raises(ValueError, match=r'cannot read checkpoint .*evil\.pth'):
        CheckpointLoader.load_checkpoint(path, map_location='cpu')
    with pytest.raises(ValueError, match=r'evil\.pth'):
        load_weights(nn.Linear(1, 1), path)
    assert not mark.exists()


def test_a_torchscript_program_is_no_checkpoint(tmp_path):
    path = str(tmp_path / 'program.pth')
    torch.jit.save(torch.jit.trace(nn.Linear(1, 1), torch.zeros(1, 1)), path)
    with pytest.raises(ValueError, match='TorchScript program'):
        CheckpointLoader.load_checkpoint(path)


def test_the_config_in_a_checkpoint_is_not_run(tmp_path):
    """MMEngine's Runner runs it at a resume."""
    path = str(tmp_path / 'old.pth')
    torch.save(dict(meta=dict(config='import os', epoch=3), state_dict={}), path)
    assert CheckpointLoader.load_checkpoint(path)['meta'] == dict(epoch=3)


def test_full_power_is_asked_for_and_said(tmp_path, monkeypatch):
    mark, path = tmp_path / 'mark', str(tmp_path / 'trusted.pth')
    torch.save(dict(state_dict={}, meta=Calls(os.mkdir, str(mark))), path)
    with pytest.raises(ValueError, match=f'posix.mkdir.*{TRUST}=1, or --trust-checkpoints'):
        CheckpointLoader.load_checkpoint(path)
    monkeypatch.setenv(TRUST, '1')
    CheckpointLoader.load_checkpoint(path)
    assert mark.exists()


@pytest.mark.parametrize('new', [True, False], ids=['zip', 'old format'])
def test_checkpoints_of_mmengine_load_as_they_were(tmp_path, new):
    buffer = HistoryBuffer()
    for value in (3.0, 1.0):
        buffer.update(value)
    parameter = nn.Parameter(torch.arange(3.0))
    schedule = dict(
        last_step=1, _anneal_func=OneCycleLR._annealing_cos, _schedule_phases=[dict(end_step=2.0)]
    )
    saved = dict(
        meta=dict(seed=np.int64(3), time='now', dataset_meta=dict(classes=('a', 'b'))),
        state_dict=OrderedDict(
            a=torch.randn(2, 3).t(),
            b=parameter,
            c=torch.ones(2, dtype=torch.bfloat16),
            d=torch.tensor([True]),
            e=torch.zeros(0, dtype=torch.int8),
        ),
        optimizer=dict(state={0: dict(step=torch.tensor(1.0))}, param_groups=[dict(lr=1.0)]),
        param_schedulers=[schedule],
        message_hub=dict(log_scalars=OrderedDict(loss=buffer), runtime_info=dict(iter=2)),
        other=[torch.Size([2]), torch.float16, {1, 2}, defaultdict(list, a=[1]), np.arange(3.0)],
    )
    path = str(tmp_path / 'epoch_1.pth')
    torch.save(saved, path, _use_new_zipfile_serialization=new)
    loaded = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    for key, value in saved['state_dict'].items():
        assert loaded['state_dict'][key].dtype == value.dtype
        assert torch.equal(loaded['state_dict'][key], value)
    restored = loaded['message_hub']['log_scalars']['loss']
    assert restored.min() == 1 and restored.mean() == 2
    assert loaded['optimizer'] == saved['optimizer']
    assert loaded['param_schedulers'] == [schedule]
    assert loaded['meta'] == saved['meta'] and loaded['other'][:4] == saved['other'][:4]
    assert np.array_equal(loaded['other'][4], saved['other'][4])


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('place', [lambda x: x, lambda x: dict(data_list=[dict(images=x)])])
def test_an_info_file_runs_no_code(tmp_path, kind, place):
    mark, path = tmp_path / 'mark', tmp_path / 'infos.pkl'
    path.write_bytes(pickle.dumps(place(payloads(mark)[kind])))
    with pytest.raises(ValueError, match='cannot read info file'):
        load_infos(str(path))
    assert not mark.exists()


def test_a_teacher_cache_runs_no_code(tmp_path):
    mark = tmp_path / 'mark'
    cache = object.__new__(TeacherCache)
    cache.root = tmp_path
    file = cache.file('abc')
    file.parent.mkdir()
    np.savez(file, token='abc', logits=np.array([payloads(mark)['system']], object))
    with pytest.raises(ValueError, match='abc'):
        cache.read('abc')
    assert not mark.exists()


@pytest.mark.parametrize('path', ['/etc/passwd', '../x', 'a/../../x', r'..\x', '..'])
def test_paths_of_files_stay_below_their_folder(path):
    with pytest.raises(ValueError, match=r'an info file names .* not below data'):
        join_inside('data', path, 'an info file')


@pytest.mark.parametrize('path', ['a/b', './a/b', r'a\b', 'x/../a/b'])
def test_paths_below_their_folder_are_joined(path):
    assert join_inside('data', path, 'a file') == os.path.join('data', 'a/b')
    assert join_inside('/data', '/data/x/../a/b', 'a file') == '/data/a/b'
