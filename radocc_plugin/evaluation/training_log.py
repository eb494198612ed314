"""Reads what MMEngine's LoggerHook wrote while training."""

import json
import re
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


def training_gpus(work_dir: Union[str, Path]) -> Optional[int]:
    """GPUs of the last training, 0 on a CPU, or None without a log.

    Read from the environment that MMEngine writes at the top of each log.
    """
    gpus = None
    for log in sorted(Path(work_dir).glob('*/*.log')):
        text = log.read_text(errors='replace')
        cuda = re.search(r'CUDA available: (True|False)', text)
        number = re.search(r'GPU number: (\d+)', text)
        if cuda and number:
            gpus = int(number[1]) if cuda[1] == 'True' else 0
    return gpus
