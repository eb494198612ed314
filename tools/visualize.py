"""Draws predictions, training samples, segments, or the real keyframe.

    python tools/visualize.py predictions --model NAME CONFIG CHECKPOINT \\
        --frames 0 10 --out work_dirs/pictures
    python tools/visualize.py samples CONFIG --out work_dirs/samples
    python tools/visualize.py segments --data-root data/nuscenes ...
    python tools/visualize.py keyframe CONFIG --data-root DATA --out OUT
"""

import sys
from pathlib import Path

# The folder above holds the package, in a clone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from radocc_plugin.commands import dispatch, run

COMMANDS = dict(
    predictions='visualize_predictions',
    samples='visualize_samples',
    segments='visualize_segments',
    keyframe='visualize_keyframe',
)


def main(argv=None):
    return dispatch(__doc__, COMMANDS, argv)


if __name__ == '__main__':
    run(main)
