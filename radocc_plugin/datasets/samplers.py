"""Samplers for models that stream: they carry state from frame to frame."""
from typing import Iterator, List

import numpy as np
from mmengine.dataset import DefaultSampler
from mmengine.dist import get_dist_info
from torch.utils.data import Sampler

from radocc_plugin.registry import DATA_SAMPLERS


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
                f'{type(dataset).__name__} without')
        groups = dataset.sequence_groups
        self.sequences = [
            chunk.tolist() for chunk in np.split(
                np.arange(len(groups)),
                np.flatnonzero(np.diff(groups)) + 1)
        ]
        self.num_slots = batch_size * sampler.world_size
        if len(self.sequences) < self.num_slots:
            raise ValueError(
                f'{self.num_slots} slots (batch size x ranks) cannot stream '
                f'{len(self.sequences)} sequences; lower the batch size or '
                'raise sequences_split')

    def __len__(self) -> int:
        return max(1, len(self.sampler.dataset) // self.num_slots)

    def __iter__(self) -> Iterator[List[int]]:
        first_slot = self.sampler.rank * self.batch_size
        slots = [
            self._slot(first_slot + i) for i in range(self.batch_size)
        ]
        skipped = self.sampler.epoch * len(self)
        for step in range(skipped + len(self)):
            batch = [next(slot) for slot in slots]
            if step >= skipped:
                yield batch

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
            raise ValueError('SceneSampler takes a dataset with '
                             f'sequence_groups, got {type(dataset).__name__}')
        self.rank, self.world_size = get_dist_info()
        num_scenes = int(groups[-1]) + 1
        if num_scenes < self.world_size:
            raise ValueError(f'{num_scenes} scenes cannot be shared out to '
                             f'{self.world_size} ranks')
        scenes = np.arange(num_scenes)
        mine = np.array_split(scenes, self.world_size)[self.rank]
        self.indices = np.flatnonzero(np.isin(groups, mine)).tolist()

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)
