"""DAOcc as a student's teacher, from files to gradients and the cache."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from radocc_plugin.distillation import TeacherCache
from radocc_plugin.registry import DATASETS, MODELS
from tests.support.models import ROOT, load_config, make_world

TWIN = 'configs/radocc/radocc-daocc_bevdet-occ_tiny-near_1xb1-1600i_synthetic.py'


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp('world'), frames=2)


@pytest.fixture(scope='module')
def twin(world):
    """The distilled config without a checkpoint of its teacher."""
    config = load_config(TWIN)
    config.model.teacher.checkpoint = None
    config.model.renderer.max_rays = 300
    config.train_dataloader.dataset.data_root = str(world)
    return config


def load(dataset, seed=0):
    dataset = DATASETS.build(dataset)
    np.random.seed(seed)
    return pseudo_collate([dataset[0]])


def build(config):
    torch.manual_seed(0)
    return MODELS.build(config)


def fixed_flip(config, flip_x, flip_y):
    """The training data with a flip that is no draw."""
    dataset = config.train_dataloader.dataset.copy()
    dataset.pipeline = [
        dict(step, flip_x_prob=flip_x, flip_y_prob=flip_y) if 'flip_x_prob' in step else step
        for step in dataset.pipeline
    ]
    return dataset


def test_a_student_learns_from_daocc(twin):
    model = build(twin.model)
    batch = model.data_preprocessor(load(twin.train_dataloader.dataset), True)
    losses = model(**batch, mode='loss')
    assert all(loss.isfinite() for loss in losses.values())
    ours = [
        loss
        for name, loss in losses.items()
        if name not in ('loss_occ', 'loss_depth') and loss.requires_grad
    ]
    assert ours
    sum(ours).backward()
    assert model.student.occ_head.predicter[2].weight.grad.any()


@pytest.mark.parametrize('flip_x, flip_y', [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)])
def test_the_teacher_answers_as_its_own_dataset_mirrored(twin, world, flip_x, flip_y):
    model = build(twin.model)
    cpu = torch.device('cpu')
    batch = model.data_preprocessor(load(fixed_flip(twin, flip_x, flip_y)), True)
    beside = model.teacher.outputs(**batch, device=cpu).occ_logits

    own = Config.fromfile(ROOT / twin.model.teacher.model)
    dataset = dict(
        own.test_dataloader.dataset, data_root=str(world), ann_file='radocc_infos_train.pkl'
    )
    teacher = model.teacher.model(cpu)
    with torch.no_grad():
        alone = teacher(**teacher.data_preprocessor(load(dataset)))
    axes = [a + 1 for a, flip in enumerate((flip_x, flip_y)) if flip]
    assert beside.shape == (1, 100, 100, 16, 18)
    torch.testing.assert_close(beside, alone.flip(axes), rtol=0, atol=1e-4)


def test_cached_logits_are_those_of_the_live_teacher(twin, tmp_path):
    spec = importlib.util.spec_from_file_location(
        'cache_teacher', ROOT / 'tools' / 'cache_teacher.py'
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    weights, out = tmp_path / 'daocc.pth', tmp_path / 'cache'
    teacher = build(load_config(twin.model.teacher.model).model)
    torch.save(dict(state_dict=teacher.state_dict()), weights)
    twin = twin.copy()
    twin.model.teacher.checkpoint = str(weights)
    path = Path(tmp_path / 'twin.py')
    twin.dump(path)
    tool.main([str(path), '--out', str(out), '--workers', '0', '--device', 'cpu'])

    batch = load(fixed_flip(twin, 1.0, 0.0))
    live = build(twin.model)
    cached = build(dict(twin.model, teacher=dict(twin.model.teacher, cache=str(out))))
    batch = live.data_preprocessor(batch, True)
    logits = [
        model.teacher.outputs(**batch, device=torch.device('cpu')).occ_logits
        for model in (live, cached)
    ]
    assert len(list(out.rglob('*.npz'))) == 2
    assert TeacherCache(out).manifest['class_weight'] is None
    torch.testing.assert_close(*logits, rtol=2e-3, atol=2e-3)
