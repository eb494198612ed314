"""A frame alone gets the past that the test of all frames gives it."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from radocc_plugin.datasets.sequences import sequence_groups
from radocc_plugin.engine.streaming import check_order, with_history


class Scenes:
    """Two scenes of three frames, one after the other or interleaved."""

    def __init__(self, scenes=(0, 0, 0, 1, 1, 1)):
        self.scenes = scenes
        self.sequence_groups = sequence_groups(scenes, 1)

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, index):
        return index

    def previous(self, index):
        for earlier in range(index - 1, -1, -1):
            if self.scenes[earlier] == self.scenes[index]:
                return earlier
        return None


class Counter:
    """A streaming model: what it says is how much of its scene it saw."""

    is_streaming = True

    def __init__(self, data):
        self.data, self.last, self.seen = data, None, 0

    def __call__(self, index):
        previous = self.data.previous(index)
        follows = previous is not None and previous == self.last
        self.seen = self.seen + 1 if follows else 1
        self.last = index
        return self.seen


@pytest.mark.parametrize('frames', [[2], [5, 2], [4, 5], [0, 1, 2], [1, 1]])
def test_frames_in_any_order_see_their_whole_past(frames):
    data = Scenes()
    model, got, runs = Counter(data), {}, 0
    for frame, wanted in with_history(data, frames):
        seen = model(frame)
        runs += 1
        if wanted:
            got[frame] = seen
    assert got == {frame: frame % 3 + 1 for frame in frames}
    if frames == [0, 1, 2]:
        assert runs == 3


def loader(scenes, order, batch_size=1):
    return DataLoader(Scenes(scenes), batch_size, sampler=order)


ROW, MIXED = (0, 0, 0, 1, 1, 1), (0, 1, 0, 1, 0, 1)


@pytest.mark.parametrize(
    'scenes, order, good',
    [
        (ROW, range(6), True),
        (ROW, [3, 4, 5], True),
        (ROW, [0, 2, 4], False),  # a plain sampler's first of two ranks
        (ROW, [1, 0, 2], False),
        (MIXED, range(6), True),
    ],
)
def test_a_test_in_another_order_is_refused(scenes, order, good):
    model = torch.nn.Identity()
    check_order(model, loader(scenes, order))  # no past, any order
    model.is_streaming = True
    for streaming in (model, SimpleNamespace(student=model)):
        if good:
            check_order(streaming, loader(scenes, order))
            continue
        with pytest.raises(ValueError, match='SceneSampler'):
            check_order(streaming, loader(scenes, order))
