"""Reads what MMEngine's LoggerHook wrote while training."""
import json
from pathlib import Path
from typing import Optional, Union


def seconds_per_step(work_dir: Union[str, Path]) -> Optional[float]:
    """Median seconds of a training iteration, or None without a log.

    The first logged window holds the start of the data workers and is left
    out where there are others. Runs that were resumed count as one.
    """
    times = []
    for log in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        lines = (json.loads(line) for line in log.read_text().splitlines())
        times += [line['time'] for line in lines
                  if 'loss' in line and 'time' in line][1:] or []
    if not times:
        return None
    return sorted(times)[len(times) // 2]
