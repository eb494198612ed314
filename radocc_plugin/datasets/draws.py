"""Random draws of a sample that follow from seed, epoch and sample alone."""

import random
from contextlib import contextmanager
from typing import Iterator, Sequence

import numpy as np
import torch


class SeededIndex(int):
    """A sample index that brings the seed of the sample's random draws.

    Wrappers like MMEngine's ``ConcatDataset`` and ``RepeatDataset`` subtract
    from an index or take it modulo; the seed stays.

    Args:
        index: The index.
        seed: Numbers >= 0 that name the draw.
    """

    def __new__(cls, index: int, seed: Sequence[int]) -> 'SeededIndex':
        self = super().__new__(cls, index)
        self.seed = tuple(map(int, seed))
        return self

    def __getnewargs__(self) -> tuple:
        return int(self), self.seed

    def __sub__(self, other: int) -> 'SeededIndex':
        return SeededIndex(int(self) - other, self.seed)

    def __mod__(self, other: int) -> 'SeededIndex':
        return SeededIndex(int(self) % other, self.seed)


@contextmanager
def seeded(index: int) -> Iterator[None]:
    """Inside, the global generators start from the seed of an index.

    Those of Python, numpy and torch (CPU) are restored afterwards: without
    worker processes they belong to the model. A plain index changes nothing.
    """
    seed = getattr(index, 'seed', None)
    if seed is None:
        yield
        return
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    words = np.random.SeedSequence(seed).generate_state(3).tolist()
    random.seed(words[0])
    np.random.seed(words[1])
    torch.default_generator.manual_seed(words[2])
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
