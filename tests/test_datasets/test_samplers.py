"""Streams stay streams: across slots, ranks, epochs and resumed runs."""

import json
import socket
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dist import collect_results
from mmengine.hooks import DistSamplerSeedHook
from mmengine.runner import Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch import distributed as torch_dist
from torch.multiprocessing import start_processes

from radocc_plugin.datasets import (
    CBGSDataset,
    LabelledUnlabelledSampler,
    Occ3DNuScenesDataset,
    SceneSampler,
    StreamBatchSampler,
    samplers,
)
from radocc_plugin.datasets.cbgs import balanced_indices
from radocc_plugin.datasets.sequences import sequence_groups


class Streamed:
    """Nothing but what samplers ask a dataset for."""

    def __init__(self, lengths, split=1):
        scenes = np.repeat(np.arange(len(lengths)), lengths)
        self.sequences_split = split
        self.sequence_groups = sequence_groups(scenes, split)

    def __len__(self):
        return len(self.sequence_groups)


def _sampler(dataset, batch_size, rank=0, world_size=1, seed=0, epoch=0):
    inner = SimpleNamespace(
        dataset=dataset, rank=rank, world_size=world_size, seed=seed, epoch=epoch
    )
    return StreamBatchSampler(inner, batch_size)


def _epochs(dataset, batch_size, epochs, **kwargs):
    """Batches of several epochs, (steps, batch_size)."""
    return np.array(
        [
            batch
            for epoch in epochs
            for batch in _sampler(dataset, batch_size, epoch=epoch, **kwargs)
        ]
    )


LENGTHS = np.random.default_rng(0).integers(3, 12, 30)


@pytest.mark.parametrize('split', (1, 2))
def test_each_slot_streams_whole_sequences(split):
    data = Streamed(LENGTHS, split)
    groups = data.sequence_groups
    for slot in _epochs(data, 4, range(3)).T:
        inside = groups[slot[1:]] == groups[slot[:-1]]
        follows = slot[1:] == slot[:-1] + 1
        # either the next frame, or the first one of a sequence, after the
        # last one of another
        assert (follows | ~inside).all() or len(set(groups)) == 1
        begins = ~follows
        first = np.r_[True, np.diff(groups) != 0]
        last = np.r_[np.diff(groups) != 0, True]
        assert first[slot[1:][begins]].all()
        assert last[slot[:-1][begins]].all()
        assert first[slot[0]]


def test_ranks_stream_what_one_rank_with_all_slots_would():
    data = Streamed(LENGTHS)
    together = _epochs(data, 4, range(3))
    ranks = [_epochs(data, 2, range(3), rank=rank, world_size=2) for rank in range(2)]
    np.testing.assert_array_equal(np.concatenate(ranks, 1), together)


def test_every_sequence_comes_once_in_a_round():
    data = Streamed([6] * 12)
    batches = _epochs(data, 4, [0])
    assert batches.shape == (18, 4)
    assert sorted(batches.flatten()) == list(range(72))


def test_the_next_epoch_goes_on_and_a_resumed_one_is_the_same():
    data = Streamed(LENGTHS)
    through = _epochs(data, 4, range(4))
    np.testing.assert_array_equal(_epochs(data, 4, [2, 3]), through[len(through) // 2 :])
    # the seam between epochs is no seam of a stream
    length = len(_sampler(data, 4))
    assert (through[length] == through[length - 1] + 1).any()
    other = _epochs(data, 4, range(4), seed=1)
    assert (other != through).any()


def _dataloader(world, **kwargs):
    dataset = dict(
        type='radocc_plugin.Occ3DNuScenesDataset',
        data_root=str(world),
        ann_file='radocc_infos_train.pkl',
        sequences_split=2,
        pipeline=[
            dict(type='radocc_plugin.LoadMultiViewImages'),
            dict(type='radocc_plugin.PackOccInputs'),
        ],
    )
    return Runner.build_dataloader(
        Config(
            dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=True),
                batch_sampler=dict(type='radocc_plugin.StreamBatchSampler'),
                dataset=dataset,
                **kwargs,
            )
        ),
        seed=0,
    )


def test_the_runner_builds_it_and_sets_its_epoch(world):
    loader = _dataloader(world)
    runner = SimpleNamespace(train_loop=SimpleNamespace(dataloader=loader), epoch=0)
    samples = []
    for runner.epoch in range(3):
        DistSamplerSeedHook().before_train_epoch(runner)
        samples += [batch['data_samples'] for batch in loader]
    assert len(loader) == 4 and len(samples) == 12
    for before, now in zip(samples, samples[1:]):
        for slot in range(2):
            assert now[slot].prev == before[slot].token or now[slot].start_of_sequence
    # the loop of iterations sees the same stream
    endless = _InfiniteDataloaderIterator(_dataloader(world))
    for batch, expected in zip(islice(endless, 4), samples):
        assert [s.token for s in batch['data_samples']] == [s.token for s in expected]


def test_what_cannot_stream_is_refused(world):
    data = Streamed([3, 3])
    with pytest.raises(ValueError, match='3 slots.*2 sequences'):
        _sampler(data, 3)
    data.sequences_split = None
    with pytest.raises(ValueError, match='sequences_split'):
        _sampler(data, 1)
    with pytest.raises(ValueError, match='sequence_groups'):
        SceneSampler([])


@pytest.mark.parametrize('world_size', (1, 2, 3, 5))
def test_ranks_test_whole_scenes_and_every_sample_once(world_size, monkeypatch):
    data = Streamed([4, 7, 2, 5, 3])
    seen = []
    for rank in range(world_size):
        monkeypatch.setattr(samplers, 'get_dist_info', lambda rank=rank: (rank, world_size))
        sampler = SceneSampler(data, seed=0)
        indices = list(sampler)
        assert len(indices) == len(sampler)
        assert data.sequence_groups[indices[0]] != (data.sequence_groups[seen[-1]] if seen else -1)
        seen += indices
    assert seen == list(range(21))
    monkeypatch.setattr(samplers, 'get_dist_info', lambda: (0, 6))
    with pytest.raises(ValueError, match='5 scenes.*6 ranks'):
        SceneSampler(data)


def test_classes_are_met_equally_often():
    # cars everywhere, bicycles (5) in one of ten, nothing else
    labels = [{0, 5} if i % 10 == 0 else {0} for i in range(1000)] + [set()]
    indices = balanced_indices(labels, seed=0)
    assert len(indices) == 2 * (1100 // 10)
    with_bicycle = np.mean([5 in labels[i] for i in indices])
    assert 0.5 < with_bicycle < 0.6
    assert indices == balanced_indices(labels, seed=0)
    assert indices != balanced_indices(labels, seed=1)


def test_cbgs_wraps_the_dataset(world):
    config = dict(
        type='radocc_plugin.Occ3DNuScenesDataset',
        data_root=str(world),
        ann_file='radocc_infos_train.pkl',
    )
    cbgs = CBGSDataset(config)
    plain = Occ3DNuScenesDataset(**{k: v for k, v in config.items() if k != 'type'})
    assert len(cbgs) == len(cbgs.sample_indices) > 0
    assert cbgs.metainfo['classes'] == plain.metainfo['classes']
    for position in (0, len(cbgs) - 1):
        index = cbgs.sample_indices[position]
        info = plain.get_data_info(index)
        assert cbgs.get_data_info(position)['token'] == info['token']
        assert cbgs[position]['token'] == info['token']
        expected = {box['bbox_label_3d'] for box in info['instances'] if box['bbox_3d_isvalid']} - {
            -1
        }
        assert cbgs.get_cat_ids(position) == expected


def test_cbgs_needs_boxes():
    with pytest.raises(ValueError, match='boxes'):
        balanced_indices([set(), set()], seed=0)


def _gather_on(rank, data, port, folder):
    torch_dist.init_process_group(
        'gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2
    )
    got = collect_results(list(SceneSampler(data)), len(data), 'cpu', str(folder / 'parts'))
    if rank == 0:
        (folder / 'got.json').write_text(json.dumps(got))


@pytest.mark.slow
def test_uneven_ranks_lose_no_result(tmp_path):
    """MMEngine's evaluator gathers every sample of both ranks, once."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    data = Streamed([4, 9, 2])
    start_processes(_gather_on, (data, port, tmp_path), nprocs=2, start_method='fork')
    got = json.loads((tmp_path / 'got.json').read_text())
    assert sorted(got) == list(range(15))


class Flagged:
    """A dataset of which one sample in three has labels."""

    def __init__(self, length=30):
        self.flags = np.arange(length) % 3 == 0

    def labelled(self):
        return self.flags

    def __len__(self):
        return len(self.flags)


def _mixed_epoch(epoch, seed=0, **counts):
    sampler = LabelledUnlabelledSampler(Flagged(), seed=seed, **counts)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert len(order) == len(sampler)
    return np.array(order)


@pytest.mark.parametrize('labelled, unlabelled', [(1, 1), (1, 3), (3, 1)])
def test_each_round_has_the_ratio_of_labels(labelled, unlabelled):
    epochs = [_mixed_epoch(e, labelled=labelled, unlabelled=unlabelled) for e in range(4)]
    seen = []
    for order in epochs:
        rounds = order.reshape(-1, labelled + unlabelled)
        assert (rounds[:, :labelled] % 3 == 0).all()
        assert (rounds[:, labelled:] % 3 != 0).all()
        # an epoch meets every labelled sample, and fills the last round
        assert set(rounds[:, :labelled].ravel()) == set(range(0, 30, 3))
        assert len(rounds) == -(-10 // labelled)
        seen.append(rounds[:, labelled:].ravel())
    # unlabelled samples go on: all 20 before any comes again
    seen = np.concatenate(seen)
    for begin in range(0, len(seen) - 19, 20):
        assert len(set(seen[begin : begin + 20])) == 20
    assert len({tuple(order) for order in epochs}) == 4
    again = _mixed_epoch(2, labelled=labelled, unlabelled=unlabelled)
    np.testing.assert_array_equal(again, epochs[2])
    other = _mixed_epoch(2, 1, labelled=labelled, unlabelled=unlabelled)
    assert (other != epochs[2]).any()


def test_labelled_samples_come_alone_if_asked_for():
    order = _mixed_epoch(0, labelled=1, unlabelled=0)
    assert sorted(order) == list(range(0, 30, 3))
    assert len(LabelledUnlabelledSampler(Flagged(1), unlabelled=0)) == 1


def test_an_epoch_may_meet_the_labels_several_times():
    """A long epoch holds what its short ones would: every pass has each sample."""
    order = _mixed_epoch(0, repeats=3).reshape(-1, 2)
    assert len(order) == 30
    for part in np.split(order[:, 0], 3):
        assert sorted(part) == list(range(0, 30, 3))
    assert sorted(order[:20, 1]) == sorted(set(range(30)) - set(range(0, 30, 3)))
    seeds = [index.seed for index in LabelledUnlabelledSampler(Flagged(), seed=0, repeats=3)]
    assert len(set(seeds)) == len(seeds)


def test_ranks_share_out_the_rounds_of_labels(monkeypatch):
    alone = _mixed_epoch(3, labelled=2, unlabelled=1).reshape(-1, 3)
    ranks = []
    for rank in range(2):
        monkeypatch.setattr(samplers, 'get_dist_info', lambda r=rank: (r, 2))
        ranks.append(_mixed_epoch(3, labelled=2, unlabelled=1).reshape(-1, 3))
    assert len(ranks[0]) == len(ranks[1]) == 3
    both = np.stack(ranks, 1).reshape(-1, 3)
    np.testing.assert_array_equal(both[:5, :2], alone[:, :2])
    assert set(both[:, :2].ravel()) == set(range(0, 30, 3))


@pytest.mark.parametrize(
    'options, match',
    [
        (dict(labelled=0), 'labelled takes at least 1, got 0'),
        (dict(unlabelled=-1), 'unlabelled takes at least 0, got -1'),
        (dict(repeats=0), 'repeats takes at least 1, got 0'),
        (dict(dataset=Streamed([3])), 'labelled, such as.*got Streamed'),
        (dict(dataset=Flagged(1)), '1 labelled and 0 unlabelled'),
    ],
)
def test_what_cannot_be_mixed_is_named(options, match):
    with pytest.raises(ValueError, match=match):
        LabelledUnlabelledSampler(**{'dataset': Flagged(), **options})


def test_frames_without_boxes_are_not_drawn_by_class():
    dataset = SimpleNamespace(sweeps_per_keyframe=2)
    with pytest.raises(ValueError, match='sweeps_per_keyframe takes 0, got 2'):
        CBGSDataset(dataset)
