"""Samplers: seeded draws, streams, and frames without labels."""

import math
from typing import Iterator, List, Optional, Sequence

import numpy as np
from mmengine.dataset import DefaultSampler
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from radocc_plugin.datasets.draws import SeededIndex
from radocc_plugin.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class SeededSampler(DefaultSampler):
    """MMEngine's ``DefaultSampler`` whose indices bring a seed each.

    Our datasets draw a sample's augmentation from it: from the seed of the
    run, the epoch and the index, whatever worker loads the sample, be the
    workers persistent or none, and after a resume. (MMEngine seeds workers
    alike in every epoch.)
    """

    def __iter__(self) -> Iterator[int]:
        return (SeededIndex(index, (self.seed, self.epoch, index)) for index in super().__iter__())


@DATA_SAMPLERS.register_module()
class StreamBatchSampler(Sampler):
    """Batches in which every slot streams sequences of its own, frame by
    frame.

    Every slot runs through whole sequences one after the other. Sequences are
    dealt to the slots of all ranks in turn, in a random order that holds each
    once before any comes again, and that follows from the seed alone. An
    epoch has ``len(dataset) / (batch_size * world_size)`` batches, rounded
    down, and the next one goes on where it ended, in the middle of sequences;
    so does a run that is resumed at an epoch, or at an iteration by MMEngine's
    ``IterBasedTrainLoop``, which winds the loader forward. A resumed model has
    no state of past frames: it must take its first frame as a start.

    As ``batch_sampler`` of a dataloader with ``batch_size``. FB-BEV @6e25469,
    ``InfiniteGroupEachSampleInBatchSampler``.

    Args:
        sampler: Gives dataset, rank, world size, seed and epoch; MMEngine's
            ``DefaultSampler``. Its order is not used.
        batch_size: Samples of a batch on one rank.

    Raises:
        ValueError: If the dataset does not stream (``sequences_split``), or
            has fewer sequences than there are slots.
    """

    def __init__(self, sampler: DefaultSampler, batch_size: int) -> None:
        # DistSamplerSeedHook sets the epoch of `sampler`
        self.sampler = sampler
        self.batch_size = batch_size
        dataset = sampler.dataset
        if getattr(dataset, 'sequences_split', None) is None:
            raise ValueError(
                'StreamBatchSampler takes a dataset with sequences_split, got '
                f'{type(dataset).__name__} without'
            )
        groups = dataset.sequence_groups
        self.sequences = [
            chunk.tolist()
            for chunk in np.split(np.arange(len(groups)), np.flatnonzero(np.diff(groups)) + 1)
        ]
        self.num_slots = batch_size * sampler.world_size
        if len(self.sequences) < self.num_slots:
            raise ValueError(
                f'{self.num_slots} slots (batch size x ranks) cannot stream '
                f'{len(self.sequences)} sequences; lower the batch size or '
                'raise sequences_split'
            )

    def __len__(self) -> int:
        return max(1, len(self.sampler.dataset) // self.num_slots)

    def __iter__(self) -> Iterator[List[int]]:
        first_slot = self.sampler.rank * self.batch_size
        slots = [self._slot(first_slot + i) for i in range(self.batch_size)]
        skipped = self.sampler.epoch * len(self)
        for step in range(skipped + len(self)):
            batch = [next(slot) for slot in slots]
            if step >= skipped:
                yield [
                    SeededIndex(index, (self.sampler.seed, step, first_slot + i))
                    for i, index in enumerate(batch)
                ]

    def _slot(self, slot: int) -> Iterator[int]:
        """Endless sample indices of one slot of all."""
        for position, sequence in enumerate(self._shuffled()):
            if position % self.num_slots == slot:
                yield from self.sequences[sequence]

    def _shuffled(self) -> Iterator[int]:
        generator = np.random.default_rng(self.sampler.seed)
        while True:
            yield from generator.permutation(len(self.sequences))


@DATA_SAMPLERS.register_module()
class SceneSampler(Sampler):
    """Whole scenes in the order of time, for testing a model that streams.

    Ranks share out the scenes; no sample is repeated. MMEngine gathers the
    uneven results of the ranks in full from 0.10.4 on.

    Args:
        dataset: Dataset with ``sequence_groups``, of whole scenes
            (``sequences_split`` None or 1).
        seed: Ignored, for MMEngine.

    Raises:
        ValueError: If the dataset has no sequences, or fewer than ranks.
    """

    def __init__(self, dataset, seed=None) -> None:
        groups = getattr(dataset, 'sequence_groups', None)
        if groups is None:
            raise ValueError(
                f'SceneSampler takes a dataset with sequence_groups, got {type(dataset).__name__}'
            )
        self.rank, self.world_size = get_dist_info()
        num_scenes = int(groups[-1]) + 1
        if num_scenes < self.world_size:
            raise ValueError(f'{num_scenes} scenes cannot be shared out to {self.world_size} ranks')
        scenes = np.arange(num_scenes)
        mine = np.array_split(scenes, self.world_size)[self.rank]
        self.indices = np.flatnonzero(np.isin(groups, mine)).tolist()

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


@DATA_SAMPLERS.register_module()
class LabelledUnlabelledSampler(Sampler):
    """Mixes samples with and without labels in a fixed ratio.

    ``labelled`` samples with labels are followed by ``unlabelled`` ones
    without, again and again: a batch of ``labelled + unlabelled`` samples has
    just this ratio. An epoch meets each labelled sample ``repeats`` times (a
    few once more, to fill the last round); unlabelled ones go on where the
    last epoch ended, in a random order that holds each once before any comes
    again. The order follows from seed and epoch; ranks share the rounds out.
    Indices bring seeds as those of ``SeededSampler`` do.

    Args:
        dataset: Dataset whose ``labelled()`` tells which samples have labels.
        labelled: Samples with labels in a round.
        unlabelled: Samples without in a round; 0 for labelled samples alone.
        seed: Of the order; None takes one that all ranks share.
        repeats: Times that an epoch meets a labelled sample. MMEngine rests for
            two seconds and starts the loader anew between epochs: with few
            labels, take it high enough for hundreds of steps.

    Raises:
        ValueError: If a number is too low, or the dataset has no samples of
            a kind that is asked for or does not tell.
    """

    def __init__(
        self,
        dataset,
        labelled: int = 1,
        unlabelled: int = 1,
        seed: Optional[int] = None,
        repeats: int = 1,
    ) -> None:
        numbers = dict(labelled=(labelled, 1), unlabelled=(unlabelled, 0), repeats=(repeats, 1))
        for name, (value, low) in numbers.items():
            if value < low:
                raise ValueError(f'{name} takes at least {low}, got {value}')
        if not callable(getattr(dataset, 'labelled', None)):
            raise ValueError(
                'LabelledUnlabelledSampler takes a dataset that tells which '
                'samples are labelled, such as Occ3DNuScenesDataset; got '
                f'{type(dataset).__name__}'
            )
        flags = dataset.labelled()
        self.kinds = [np.flatnonzero(flags), np.flatnonzero(~flags)]
        if not len(self.kinds[0]) or unlabelled and not len(self.kinds[1]):
            raise ValueError(
                f'LabelledUnlabelledSampler mixes {len(self.kinds[0])} '
                f'labelled and {len(self.kinds[1])} unlabelled samples; it '
                'takes some of both: set sweeps_per_keyframe or label_every '
                'of the dataset'
            )
        self.counts = (labelled, unlabelled)
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self.rounds = math.ceil(repeats * len(self.kinds[0]) / (labelled * self.world_size))

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch comes next, for MMEngine."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.rounds * sum(self.counts)

    def __iter__(self) -> Iterator[int]:
        rounds = self.rounds * self.world_size
        orders = []
        for kind, (samples, count) in enumerate(zip(self.kinds, self.counts)):
            if not count:
                continue
            drawn = rounds * count
            # Labelled samples are shuffled anew for each epoch.
            key, first = (
                ((self.seed, kind, self.epoch), 0)
                if kind == 0
                else ((self.seed, kind), self.epoch * drawn)
            )
            order = _endless_shuffles(samples, key, first, drawn)
            orders.append(order.reshape(rounds, count)[self.rank :: self.world_size])
        indices = np.concatenate(orders, axis=1).ravel().tolist()
        return (
            SeededIndex(index, (self.seed, self.epoch, self.rank, place))
            for place, index in enumerate(indices)
        )


def _endless_shuffles(items: np.ndarray, key: Sequence[int], first: int, count: int) -> np.ndarray:
    """``count`` items from number ``first`` on of shuffle after shuffle."""
    begin, end = first // len(items), (first + count - 1) // len(items)
    shuffles = [
        np.random.default_rng([*key, number]).permutation(items) for number in range(begin, end + 1)
    ]
    skipped = first - begin * len(items)
    return np.concatenate(shuffles)[skipped : skipped + count]
