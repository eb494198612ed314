"""Configs as the commands take them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from radocc_plugin.config_file import load_config

ROOT = Path(__file__).resolve().parents[1]
STUDENT = 'projects/BEVDetOcc/configs/bevdet-occ_tiny_1xb1-3e_synthetic.py'


def roots_of(config):
    return {config[f'{name}_dataloader'].dataset.data_root for name in ('train', 'val', 'test')}


def test_package_configs_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(STUDENT).model.type
    with pytest.raises(ValueError, match='nowhere.py'):
        load_config('nowhere.py')


def test_data_root_on_the_command_line_moves_every_dataset():
    assert len(roots_of(load_config(STUDENT))) == 1
    moved = load_config(STUDENT, options=dict(data_root='/x'))
    assert roots_of(moved) == {'/x'}


@pytest.mark.parametrize('name', ['input_size', 'pack.meta_keys', 'modle.x'])
def test_an_option_that_changes_nothing_is_refused(name):
    """Variables of the file, read already, and slips of the pen."""
    variable = name.split('.')[0]
    with pytest.raises(ValueError, match=f'{variable} is no setting'):
        load_config(STUDENT, options={name: 1})


def test_home_and_variables_are_replaced(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', '/home/me')
    monkeypatch.setenv('RUNS', '/runs')
    config = load_config(
        STUDENT, options=dict(data_root='~/nuscenes', work_dir='$RUNS/x', load_from='${RUNS}/y')
    )
    assert roots_of(config) == {'/home/me/nuscenes'}
    assert (config.work_dir, config.load_from) == ('/runs/x', '/runs/y')
    with pytest.raises(ValueError, match='not set: .NOWHERE'):
        load_config(STUDENT, options=dict(work_dir='$NOWHERE/x'))


@pytest.mark.parametrize('workers', (0, 2))
def test_no_workers_are_not_persistent(workers):
    loader = load_config(
        STUDENT,
        options={
            'train_dataloader.num_workers': workers,
            'train_dataloader.persistent_workers': True,
        },
    ).train_dataloader
    assert loader.persistent_workers is (workers > 0)


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize(
    'config',
    [
        STUDENT,
        'configs/radocc/radocc_bevdet-occ_tiny_1xb1-3e_synthetic.py',
        'projects/FBOcc/configs/fbocc_tiny_1xb1-3e_synthetic.py',
    ],
)
def test_an_input_size_that_the_stride_does_not_divide_is_refused(config, split):
    pipeline = load_config(config)[f'{split}_dataloader'].dataset.pipeline
    (place,) = [n for n, step in enumerate(pipeline) if 'input_size' in step]
    size = {f'{split}_dataloader.dataset.pipeline.{place}.input_size': (92, 256)}
    with pytest.raises(ValueError, match=rf'{split}_dataloader makes .*\(92, 256\).*stride 8'):
        load_config(config, options=size)
    owner = 'model.student' if 'radocc' in config.split('/')[-1] else 'model'
    load_config(config, options={**size, f'{owner}.data_preprocessor.pad_size_divisor': 8})


TRAIN = """
from torch.utils.data import Dataset
from tests.test_distillation import toy_distillation as toy
from radocc_plugin.registry import DATASETS
DATASETS.register_module('ToyGlooData', force=True, module=toy.ToyData)
import importlib.util, sys
spec = importlib.util.spec_from_file_location('train', 'tools/train.py')
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)
tool.main(sys.argv[1:])
"""


@pytest.mark.slow
def test_torchrun_trains_on_the_cpu(tmp_path):
    """Two processes that exchange their gradients by gloo."""
    (tmp_path / 'script.py').write_text(TRAIN)
    (tmp_path / 'toy.py').write_text("""
model = dict(type='radocc_plugin.ToyOccStudent')
train_dataloader = dict(
    batch_size=3, num_workers=0,
    dataset=dict(type='radocc_plugin.ToyGlooData'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='pseudo_collate'))
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
default_scope = 'mmengine'
""")
    environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'torch.distributed.run',
            '--standalone',
            '--nproc_per_node=2',
            str(tmp_path / 'script.py'),
            str(tmp_path / 'toy.py'),
            '--work-dir',
            str(tmp_path / 'work'),
            '--launcher',
            'pytorch',
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / 'work/epoch_1.pth').is_file()
