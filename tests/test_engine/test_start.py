"""Where a training starts, and that its checkpoints tell it."""

import shutil

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from radocc_plugin.datasets.draws import seeded
from radocc_plugin.engine import InitialWeightsHook, latest_checkpoint, set_start
from radocc_plugin.fileio import file_hash
from radocc_plugin.registry import MODELS
from tests.test_distillation.toy_distillation import STUDENT, ToyData, assert_same_weights


@pytest.fixture
def pretrained(tmp_path):
    torch.manual_seed(7)
    path = tmp_path / 'pretrained.pth'
    torch.save(dict(state_dict=MODELS.build(STUDENT).state_dict()), path)
    return path


class NoisyData(ToyData):
    """Draws as a dataset of ours does."""

    def __getitem__(self, index):
        with seeded(index):
            item = super().__getitem__(int(index))
            item['inputs']['imgs'] += 0.5 * torch.rand(1) * np.random.rand()
            return item


def train(work_dir, load_from, resume, epochs, lr=0.0):
    config = Config(
        dict(
            model=STUDENT,
            work_dir=str(work_dir),
            load_from=str(load_from),
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=lr)),
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1),
                sampler_seed=dict(type='radocc_plugin.EpochSeedHook'),
            ),
            randomness=dict(seed=4),
            experiment_name=f'{work_dir.name}{epochs}',
            log_level='ERROR',
        )
    )
    set_start(config, resume)
    config.train_dataloader = dict(
        dataset=dict(type='radocc_plugin.ToyStartData'),
        batch_size=6,
        sampler=dict(type='radocc_plugin.SeededSampler', shuffle=True),
        collate_fn=dict(type='pseudo_collate'),
    )
    runner = Runner.from_cfg(config)
    runner.register_hook(InitialWeightsHook())
    runner.train()
    return runner


@pytest.fixture(autouse=True)
def toy_data():
    from radocc_plugin.registry import DATASETS

    DATASETS.register_module('ToyStartData', force=True, module=NoisyData)


def meta_of(work_dir):
    path = latest_checkpoint(work_dir)
    return torch.load(path, weights_only=False)['meta']


def test_resume_with_nothing_to_resume_starts_from_load_from(tmp_path, pretrained):
    """The requeued job of a cluster; with lr 0 its weights stay."""
    work_dir = tmp_path / 'run'
    model = train(work_dir, pretrained, 'auto', epochs=1).model
    want = torch.load(pretrained)['state_dict']['head.weight']
    assert torch.equal(model.state_dict()['head.weight'], want)
    loaded = dict(file='pretrained.pth', hash=file_hash(pretrained))
    assert meta_of(work_dir)['initial_weights'] == loaded
    # a resumed run still tells what its first start loaded
    runner = train(work_dir, pretrained, 'auto', epochs=2)
    assert runner.epoch == 2
    assert meta_of(work_dir)['initial_weights'] == loaded


def test_a_resumed_run_is_the_run_that_was_never_stopped(tmp_path, pretrained):
    """Order, augmentation and dropout; two epochs that differ."""
    whole = train(tmp_path / 'whole', pretrained, None, 3, lr=0.1)
    train(tmp_path / 'parts', pretrained, None, 2, lr=0.1)
    parts = train(tmp_path / 'parts', pretrained, 'auto', 3, lr=0.1)
    assert parts.iter == whole.iter == 6
    assert_same_weights(parts.model.state_dict(), whole.model.state_dict())


def test_a_moved_work_folder_resumes(tmp_path, pretrained):
    train(tmp_path / 'old', pretrained, 'auto', epochs=1)
    shutil.move(tmp_path / 'old', tmp_path / 'new')
    assert train(tmp_path / 'new', pretrained, 'auto', epochs=2).epoch == 2


@pytest.mark.parametrize(
    'given, want',
    [
        (dict(resume=None), (False, 'a.pth')),
        (dict(resume='b.pth'), (True, 'b.pth')),
        (dict(resume='auto'), (False, 'a.pth')),
    ],
)
def test_the_start_is_the_config_s_unless_resumed(tmp_path, monkeypatch, given, want):
    monkeypatch.chdir(tmp_path)
    torch.save({}, 'b.pth')
    config = Config(dict(work_dir=str(tmp_path), load_from='a.pth', resume=False))
    set_start(config, **given)
    assert (config.resume, config.load_from) == want


def test_a_config_that_resumes_starts_anew_where_nothing_is(tmp_path):
    config = Config(dict(work_dir=str(tmp_path), load_from=None, resume=True))
    set_start(config)
    assert (config.resume, config.load_from) == (False, None)
