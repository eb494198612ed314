"""Watches memory and open files of a long command, and says whether they grow.

    python tests/memory_watch.py --every 30 -- python tools/train.py CONFIG ...

Prints a Markdown table: seconds, MB of the process (what it shares with
others divided among them) and of all below it, open files. Growth is that
between the median of the second and of the last quarter.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path


def processes(root: int):
    """Numbers of a process and all below it."""
    found = [root]
    for pid in found:
        for path in Path(f'/proc/{pid}/task').glob('*/children'):
            found += map(int, path.read_text().split())
    return found


def measure(root: int):
    """Memory of the process, of it and all below it (MB), open files."""
    memory, files = [], 0
    for pid in processes(root):
        try:
            lines = Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()
            files += len(list(Path(f'/proc/{pid}/fd').iterdir()))
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
        memory += [int(line.split()[1]) / 1024 for line in lines if line.startswith('Pss:')]
    return (memory[0], sum(memory), files) if memory else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--every', type=float, default=30, help='seconds')
    parser.add_argument('--log', default='/dev/null', help='where the output of the command goes')
    parser.add_argument('command', nargs='+')
    args = parser.parse_args()
    with open(args.log, 'w') as log:
        process = subprocess.Popen(args.command, stdout=log, stderr=subprocess.STDOUT)
    start, rows = time.time(), []
    print('| s | process, MB | all, MB | open files |\n| ---: | ---: | ---: | ---: |', flush=True)
    while process.poll() is None:
        row = measure(process.pid)
        if row is not None:
            rows.append(row)
            cells = (time.time() - start, *row)
            print('| ' + ' | '.join(f'{cell:.0f}' for cell in cells) + ' |', flush=True)
        try:
            process.wait(args.every)
        except subprocess.TimeoutExpired:
            pass
    quarter = max(len(rows) // 4, 1)
    early, late = rows[quarter : 2 * quarter] or rows, rows[-quarter:]
    growth = [
        statistics.median(row[i] for row in late) - statistics.median(row[i] for row in early)
        for i in range(3)
    ]
    print(f'\nGrowth: {growth[0]:+.0f} MB, all {growth[1]:+.0f} MB, {growth[2]:+.0f} open files')
    sys.exit(process.returncode)


if __name__ == '__main__':
    main()
