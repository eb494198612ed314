"""Augmentation follows from seed, epoch and sample, and from nothing else."""

import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset
from torch.utils.data import DataLoader

from radocc_plugin.datasets import CBGSDataset, SeededSampler
from radocc_plugin.datasets.draws import SeededIndex, seeded


@pytest.fixture
def dataset(make_dataset, tiny_infos):
    """Samples that hold nothing but their random turn of the ego frame."""
    augment = dict(type='radocc_plugin.AugmentBEV', rotate=(-90.0, 90.0), flip_x_prob=0.5)
    return make_dataset(tiny_infos, pipeline=[augment])


def draws(dataset, epochs, seed=5, **loader):
    """First entries of ``bda_mat`` by sample of each epoch."""
    sampler = SeededSampler(dataset, seed=seed)
    loader = DataLoader(dataset, sampler=sampler, collate_fn=_tokens_and_turns, **loader)
    found = []
    for epoch in epochs:
        sampler.set_epoch(epoch)
        found.append({})
        for batch in loader:
            found[-1].update(batch)
    return found


def _tokens_and_turns(samples):
    return {s['token']: s['bda_mat'][0, 0] for s in samples}


@pytest.mark.parametrize(
    'workers', [dict(), dict(num_workers=1), dict(num_workers=2, persistent_workers=True)]
)
def test_every_epoch_draws_anew_and_a_resumed_one_the_same(dataset, workers):
    first, second = draws(dataset, (0, 1), **workers)
    assert all(first[token] != second[token] for token in first)
    (resumed,) = draws(dataset, (1,), **workers)
    assert resumed == second
    assert draws(dataset, (0, 1)) == [first, second]
    assert draws(dataset, (0,), seed=6) != [first]


@pytest.mark.parametrize('wrap', [lambda d: ConcatDataset([d, d]), lambda d: RepeatDataset(d, 2)])
def test_copies_of_a_sample_draw_apart_and_reproducibly(dataset, wrap):
    wrapped = wrap(dataset)
    got = [
        [wrapped[i]['bda_mat'][0, 0] for i in SeededSampler(wrapped, shuffle=False, seed=0)]
        for _ in range(2)
    ]
    assert got[0] == got[1] and len(set(got[0])) == len(wrapped)


def test_repeated_keyframes_of_cbgs_draw_apart(make_dataset, tiny_infos):
    tiny_infos[0]['instances'] = [dict(bbox_label_3d=i) for i in range(10)]
    augment = dict(type='radocc_plugin.AugmentBEV', rotate=(-90.0, 90.0))
    balanced = CBGSDataset(make_dataset(tiny_infos, pipeline=[augment]))
    turns = [balanced[i]['bda_mat'][0, 0] for i in SeededSampler(balanced, shuffle=False, seed=0)]
    assert len(turns) == 10 == len(set(turns))


def test_draws_of_a_sample_leave_the_model_s_generators_alone():
    states = [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
    index = pickle.loads(pickle.dumps(SeededIndex(3, (1, 2))))
    with seeded(index):
        random.random(), np.random.rand(), torch.rand(1)
    assert index == 3 and states == [
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
    ]
