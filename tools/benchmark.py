"""Measures the renderer, the stages of a model, or the metrics.

python tools/benchmark.py rendering      # backends against the author's form
python tools/benchmark.py model CONFIG   # seconds, memory, operators a stage
python tools/benchmark.py evaluation     # metrics against published loops
"""

import sys
from pathlib import Path

# The folder above holds the package, in a clone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from radocc_plugin.commands import dispatch, run

COMMANDS = dict(
    rendering='benchmark_rendering', model='benchmark_model', evaluation='benchmark_evaluation'
)


def main(argv=None):
    return dispatch(__doc__, COMMANDS, argv)


if __name__ == '__main__':
    run(main)
