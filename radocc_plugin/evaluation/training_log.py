"""Reads what MMEngine's LoggerHook wrote while training."""
import json
from pathlib import Path
from statistics import median
from typing import Optional, Union


def seconds_per_step(work_dir: Union[str, Path]) -> Optional[float]:
    """Median seconds of a training iteration, or None without a log.

    The first window of each run holds the start of the data workers and is
    left out where there are others. A resumed run adds to those before it.
    """
    times = []
    for log in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        run = [line['time'] for line in lines if 'loss' in line]
        times += run[1:] or run
    return median(times) if times else None
