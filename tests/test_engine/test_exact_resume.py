"""A training that is killed and resumed is one that was never stopped."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from radocc_plugin.engine import process_state, set_start
from radocc_plugin.registry import DATASETS, MODELS
from tests.test_distillation.toy_distillation import (
    STUDENT,
    ToyData,
    ToyOccStudent,
    assert_same_weights,
)

DATASETS.register_module('ResumedToyData', force=True, module=ToyData)


@MODELS.register_module(force=True)
class ToyStream(ToyOccStudent):
    """Its training carries a sum of all batches along; draws by dropout."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.past = torch.zeros(3)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        images = torch.stack(inputs['imgs']) + self.past[:, None, None]
        if mode == 'loss':
            self.past = (self.past + images.mean((0, 1, 3, 4))) / 2
        return super().forward(dict(imgs=images), data_samples, mode)

    def stream_state(self):
        return dict(past=self.past.clone())

    def load_stream_state(self, state):
        self.past = state['past']


class Stopped(Exception):
    pass


def train(folder, model, length, by_epoch, stop=None, counts=1, streams=False, ema=False):
    """The Runner of a training, which is left after ``stop`` iterations.

    Twelve samples, five a batch: three iterations an epoch.
    """
    config = Config(
        dict(
            model=model,
            work_dir=str(folder),
            train_cfg=dict(by_epoch=True, max_epochs=length)
            if by_epoch
            else dict(by_epoch=False, max_iters=length),
            train_dataloader=dict(
                dataset=dict(type='radocc_plugin.ResumedToyData'),
                batch_size=5,
                sampler=dict(type='radocc_plugin.SeededSampler'),
                collate_fn=dict(type='pseudo_collate'),
            ),
            optim_wrapper=dict(
                optimizer=dict(type='AdamW', lr=1e-2),
                clip_grad=dict(max_norm=5.0),
                accumulative_counts=counts,
            ),
            param_scheduler=dict(type='LinearLR', start_factor=0.1, end=9, by_epoch=False),
            default_hooks=dict(
                checkpoint=dict(
                    type='radocc_plugin.SafeCheckpointHook',
                    interval=1,
                    by_epoch=by_epoch,
                    save_streams=streams,
                ),
                finite_steps=dict(type='radocc_plugin.FiniteStepHook'),
                sampler_seed=dict(type='radocc_plugin.EpochSeedHook'),
            ),
            custom_hooks=[dict(type='radocc_plugin.MEGVIIEMAHook')] if ema else [],
            randomness=dict(seed=4),
            experiment_name=f'{folder.name}{stop}',
            log_level='ERROR',
        )
    )
    set_start(config, 'auto')
    runner = Runner.from_cfg(config)
    if stop is not None:
        step = runner.model.train_step

        def stopped_step(*args, **kwargs):
            if runner.iter == stop:
                raise Stopped
            return step(*args, **kwargs)

        runner.model.train_step = stopped_step
        with pytest.raises(Stopped):
            runner.train()
    else:
        runner.train()
    return runner


@pytest.mark.parametrize(
    'model, by_epoch, options',
    [
        (STUDENT, True, dict(counts=2, ema=True)),
        (STUDENT, False, dict(counts=3, ema=True)),
        (dict(type='radocc_plugin.ToyStream'), True, dict(streams=True)),
        (dict(type='radocc_plugin.ToyStream'), False, dict(streams=True, counts=2)),
    ],
)
def test_it_ends_with_the_same_bits(tmp_path, model, by_epoch, options):
    """Stopped in the middle of an epoch, and of an accumulated step."""
    length = 3 if by_epoch else 8
    whole = train(tmp_path / 'whole', model, length, by_epoch, **options)
    train(tmp_path / 'run', model, length, by_epoch, stop=4, **options)
    resumed = train(tmp_path / 'run', model, length, by_epoch, **options)
    assert resumed._load_from.endswith('epoch_1.pth' if by_epoch else 'iter_4.pth')
    assert_same_weights(resumed.model.state_dict(), whole.model.state_dict())
    for one, other in zip(
        resumed.optim_wrapper.optimizer.state.values(), whole.optim_wrapper.optimizer.state.values()
    ):
        assert torch.equal(one['exp_avg_sq'], other['exp_avg_sq'])


def test_each_process_gets_its_own_statistics_of_batch_norm_back(monkeypatch):
    """A checkpoint's weights hold those of process 0 alone."""
    model = ToyOccStudent()
    norm = model.encode[1]
    runner = SimpleNamespace(model=model, optim_wrapper=SimpleNamespace())
    monkeypatch.setattr(process_state, 'get_world_size', lambda: 2)
    states = []
    for rank in range(2):
        norm.running_mean.fill_(rank + 1.0)
        monkeypatch.setattr(process_state, 'all_gather_object', lambda own: [own])
        states += copy.deepcopy(process_state.gather_states(runner, streams=False))
    norm.running_mean.zero_()
    for rank in range(2):
        monkeypatch.setattr(process_state, 'get_rank', lambda: rank)
        process_state.restore_state(runner, states)
        assert (norm.running_mean == rank + 1.0).all()
