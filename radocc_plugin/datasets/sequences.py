"""Which frames belong together: queues, streamed sequences, sweeps."""

from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np


class Keyframe(NamedTuple):
    """What is looked up of all samples while their infos stay serialised."""

    token: Optional[str]
    prev: Optional[str]
    scene_token: Optional[str]
    labels: Tuple[int, ...]  # detection classes that LiDAR or radar hit
    labelled: bool = True

    @classmethod
    def of(cls, info: dict) -> 'Keyframe':
        labels = {
            instance['bbox_label_3d']
            for instance in info.get('instances', ())
            if instance.get('bbox_3d_isvalid', True)
        }
        return cls(
            info.get('token'),
            info.get('prev'),
            info.get('scene_token'),
            tuple(sorted(labels - {-1})),
            info.get('labelled', True),
        )


def evenly_spaced(items: Sequence, count: int) -> list:
    """At most ``count`` of the items, evenly spread and off the ends."""
    total = len(items)
    if total <= count:
        return list(items)
    return [items[(n + 1) * (total + 1) // (count + 1) - 1] for n in range(count)]


def draw_queue(queue_length: int) -> List[int]:
    """How many keyframes back the history of a training queue is.

    One of the last ``queue_length`` keyframes is left out at random:
    CVPR2023-Occ @4781df9.

    Args:
        queue_length: Frames of the queue including the current one.

    Returns:
        ``queue_length - 1`` numbers from 1 to ``queue_length``, ascending.
    """
    left_out = np.random.randint(queue_length)
    return [n + 1 for n in range(queue_length) if n != left_out]


def sequence_groups(scenes: Sequence, split: int) -> np.ndarray:
    """Number of the sequence that each sample belongs to.

    Args:
        scenes: Scene of each sample; samples of a scene follow each other.
        split: Into how many sequences a scene is cut. They are equally long
            but for the last, and fewer for a scene shorter than ``split``.

    Returns:
        Numbers from 0, ascending, int64, shape (len(scenes),).

    FB-BEV @6e25469, ``sequences_split_num``.
    """
    scenes = list(scenes)
    borders = [i for i in range(len(scenes)) if i == 0 or scenes[i] != scenes[i - 1]]
    groups = np.zeros(len(scenes), np.int64)
    for begin, end in zip(borders, [*borders[1:], len(scenes)]):
        length = -(-(end - begin) // split)
        groups[begin:end:length] = 1  # a sequence starts here
    return np.cumsum(groups) - 1


def starts_of(groups: np.ndarray) -> np.ndarray:
    """Whether a sample is the first of its sequence, bool."""
    return np.diff(groups, prepend=-1) != 0
