"""Sequences of made-up batches for the FB-OCC stream."""

import numpy as np

from radocc_plugin.datasets.transforms.bev import bda_matrix
from tests.support.models import make_batch

SIZE = (32, 64)


def drive(frame):
    """From one frame to the one before: ahead, with a slight turn."""
    matrix = bda_matrix(1.0 + frame, 1.0, False, False)
    matrix[0, 3] = 1.5
    return matrix


def make_frames(sequence, length=3, size=SIZE):
    """Batches of one frame each of a sequence."""
    frames = []
    for frame in range(length):
        inputs, samples = make_batch(seed=100 * sequence + frame, size=size)
        samples[0].set_metainfo(
            dict(
                token=f'{sequence}/{frame}',
                prev=f'{sequence}/{frame - 1}' if frame else '',
                sequence_group_idx=sequence,
                start_of_sequence=frame == 0,
                ego2prev_ego=drive(frame) if frame else np.eye(4),
            )
        )
        frames.append((inputs, samples))
    return frames
