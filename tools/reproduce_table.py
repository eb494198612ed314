"""Makes comparison tables from result records, or runs the suites of them.

    python tools/reproduce_table.py occ3d-val --out work_dirs/table
    python tools/reproduce_table.py ablation --seeds 0 1 2 --gpus 8
    python tools/reproduce_table.py students --seeds 0 1 --jobs 2
    python tools/reproduce_table.py 'work_dirs/*/record.json' --quoted \\
        --update README.md
    python tools/reproduce_table.py quickstart

A suite (configs/suites/*.yml) names its rows. With ``--seeds`` every row
without a record is trained and tested; an interrupted suite goes on where it
stopped. Without it, the table shows what is there. ``quickstart`` is the suite
of the synthetic world, drawing included: see its --help.
"""

import argparse
import glob
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

# The folder above holds the package, in a clone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from radocc_plugin.commands import run  # first: sets the environment of torch

from rich.console import Console

from radocc_plugin.commands import quickstart
from radocc_plugin.commands.jobs import Job, run_jobs
from radocc_plugin.config_file import shipped_root
from radocc_plugin.evaluation.published import read_quoted
from radocc_plugin.evaluation.records import read_records
from radocc_plugin.evaluation.suites import (
    Run,
    Suite,
    check_settings,
    finished_records,
    plan_runs,
    read_suite,
    test_arguments,
    train_arguments,
)
from radocc_plugin.evaluation.table import build_tables
from radocc_plugin.evaluation.table_formats import to_csv, to_html, to_markdown, to_terminal
from radocc_plugin.fileio import write_atomically
from radocc_plugin.occ3d import CLASSES

ROOT = shipped_root()
QUOTED = ROOT / 'configs' / 'published_results.yaml'
SUITES = ROOT / 'configs' / 'suites'
START, END = '<!-- results:start -->', '<!-- results:end -->'


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    suites = ', '.join(sorted(path.stem for path in SUITES.glob('*.yml')))
    parser.add_argument(
        'sources',
        nargs='*',
        help=f'one suite ({suites}, or a .yml file); or record files, globs, '
        'folders to search for *record*.json',
    )
    parser.add_argument(
        '--seeds',
        type=int,
        nargs='+',
        metavar='N',
        help='trains and tests what has no record yet, with each of these seeds',
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=1,
        help='trainings and tests side by side; on a CPU with one thread each',
    )
    parser.add_argument('--work-dir', type=Path, help='runs of the suite; default what it says')
    parser.add_argument(
        '--gpus', type=int, default=1, help='processes of a training (torchrun) if more than 1'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='settings of every training and test of the suite',
    )
    parser.add_argument('--out', help='writes table.md, .html and .csv into this folder')
    parser.add_argument(
        '--quoted',
        nargs='?',
        const=str(QUOTED),
        metavar='YAML',
        help='adds published rows (default: configs/published_results.yaml); a suite has its own',
    )
    parser.add_argument(
        '--update',
        metavar='MARKDOWN',
        help=f'rewrites the table between {START}, with the name of the suite '
        f'behind start if the file has several, and {END} of this file',
    )
    args = parser.parse_args(argv)
    if not args.sources:
        parser.error('names no suite and no records')
    if args.jobs < 1:
        parser.error(f'--jobs takes a positive number, got {args.jobs}')
    return args


def find_suite(sources):
    """The suite that the one source names, or None for records.

    Raises:
        ValueError: If a suite is not the only source.
    """
    paths = [
        path
        for source in sources
        for path in (SUITES / f'{source}.yml', Path(source))
        if path.suffix == '.yml' and path.is_file()
    ]
    if paths and len(sources) > 1:
        raise ValueError(f'a suite is the only source, got {sources}')
    return read_suite(paths[0]) if paths else None


def record_paths(patterns):
    """Files of all patterns, each once.

    Raises:
        ValueError: If a pattern matches nothing.
    """
    paths = []
    for pattern in patterns:
        if Path(pattern).is_dir():
            found = Path(pattern).rglob('*record*.json')
        else:
            found = map(Path, glob.glob(pattern, recursive=True))
        found = sorted(found)
        if not found:
            raise ValueError(f'{pattern}: no records here')
        paths += [path for path in found if path not in paths]
    return paths


def update_between_markers(path, markdown, suite=None):
    """Replaces what a Markdown file has between the results markers.

    A file with several tables has markers with the names of their suites,
    ``<!-- results:start NAME -->``.

    Raises:
        ValueError: If the file lacks the markers.
    """
    text = Path(path).read_text()
    start = START.replace('start', f'start {suite}')
    if start not in text:
        start = START
    before, found, rest = text.partition(start)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise ValueError(f'{path}: takes a line {START} and, below it, a line {END}')
    write_atomically(path, f'{before}{start}\n\n{markdown}\n{END}{after}')


def run_suite(suite: Suite, args, console: Console) -> None:
    """Trains and tests every run that has no record.

    Raises:
        SystemExit: If a training or test fails.
    """
    runs = plan_runs(suite, args.seeds)

    def name(item: Run) -> str:
        return f'{item.row.id}-{item.seed}'

    def job(item: Run) -> Job:
        def work():
            if item.record.is_file():
                console.print(f'has {item.record}', markup=False)
                return None
            start = time.monotonic()
            if item.row.checkpoint is None:
                _call('train', train_arguments(item, args.cfg_options), item, args.gpus, args.jobs)
            test = test_arguments(item, suite.metrics, args.cfg_options)
            _call('test', test, item, 1, args.jobs)
            return time.monotonic() - start

        needs = [name(item.teacher)] if item.teacher else []
        return Job(name(item), f'{item.row.name}, seed {item.seed}', work, needs)

    for item in runs:  # all of them before the first begins
        check_settings(item, args.cfg_options)
    run_jobs([job(item) for item in runs], args.jobs, console)


def _call(tool: str, arguments, item: Run, gpus: int, jobs: int) -> None:
    """Runs a tool; beside others, its screen is a file of the run's folder."""
    path = ROOT / 'tools' / f'{tool}.py'
    command = [sys.executable, str(path), *arguments]
    if gpus > 1:
        command[1:1] = ['-m', 'torch.distributed.run', f'--nproc_per_node={gpus}']
        # --cfg-options takes all that follows it, so this goes first
        tool_at = command.index(str(path))
        command[tool_at + 1 : tool_at + 1] = ['--launcher', 'pytorch']
    with ExitStack() as stack:
        screen = None
        environment = dict(os.environ)
        if jobs > 1:
            environment.setdefault('OMP_NUM_THREADS', '1')
            screen = stack.enter_context((item.folder / f'{tool}_screen.txt').open('w'))
        failed = subprocess.run(
            command, env=environment, stdout=screen, stderr=screen and subprocess.STDOUT
        ).returncode
    if failed:
        where = f', see {screen.name}' if screen else ''
        raise SystemExit(
            f'tools/{tool}.py of {item.row.name!r}, seed {item.seed}, failed{where}. The same '
            'command goes on from here once the cause is mended.'
        )


def suite_tables(suite: Suite, args):
    """Tables of the records that a suite has.

    Raises:
        ValueError: If it has none.
    """
    paths = finished_records(suite)
    if not paths:
        raise ValueError(
            f'suite {suite.name} has no records in {suite.work_dir}; --seeds 0 makes them'
        )
    tables = build_tables(read_records(paths), suite.names)
    for table in tables:
        if table.space.classes == CLASSES:  # what is quoted is Occ3D-nuScenes
            table.quoted = [
                row
                for benchmark in suite.quoted
                for row in read_quoted(args.quoted or QUOTED, benchmark)
            ]
    return tables


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ['quickstart']:
        return quickstart.main(argv[1:])
    args = parse_args(argv)
    console = Console()
    suite = find_suite(args.sources)
    if suite is None:
        if args.seeds is not None:
            raise ValueError(f'--seeds runs a suite; {args.sources} is none')
        tables = build_tables(read_records(record_paths(args.sources)))
        if args.quoted:
            for table in tables:
                if table.space.classes == CLASSES:
                    table.quoted = read_quoted(args.quoted)
    else:
        suite.work_dir = args.work_dir or suite.work_dir
        if args.seeds is not None:
            run_suite(suite, args, console)
        console.print(suite.title, style='bold')
        tables = suite_tables(suite, args)
    for table in tables:
        console.print(to_terminal(table))

    markdown = '\n'.join(to_markdown(table) for table in tables)
    if args.out:
        for name, text in (
            ('table.md', markdown),
            ('table.html', to_html(tables)),
            ('table.csv', to_csv(tables)),
        ):
            write_atomically(Path(args.out) / name, text)
        console.print(f'{Path(args.out) / "table.md"}, .html and .csv written')
    if args.update:
        update_between_markers(args.update, markdown, suite and suite.name)


if __name__ == '__main__':
    run(main)
