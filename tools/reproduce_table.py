"""Makes comparison tables from result records, or runs the suites of them.

    python tools/reproduce_table.py --suite occ3d-val --out work_dirs/table
    python tools/reproduce_table.py ablation --seeds 3 --gpus 8
    python tools/reproduce_table.py 'work_dirs/*/record.json' --quoted \\
        --update README.md

A suite (configs/suites/*.yml) names its rows. With ``--seeds N`` every row
without a record is trained and tested; an interrupted suite goes on where it
stopped. Without it, the table shows what is there.
"""

import argparse
import glob
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rich.console import Console

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
    parser.add_argument('--suite', help='the same as naming it as the source')
    parser.add_argument(
        '--seeds',
        type=int,
        metavar='N',
        help='trains and tests what has no record yet, with seeds 0 ... N-1',
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
    args.sources += [args.suite] if args.suite else []
    if not args.sources:
        parser.error('names no suite and no records')
    if args.seeds is not None and args.seeds < 1:
        parser.error(f'--seeds takes a number of seeds, got {args.seeds}')
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
    for number, run in enumerate(runs, 1):
        check_settings(run, args.cfg_options)
        head = f'[{number}/{len(runs)}] {run.row.name}, seed {run.seed}'
        if run.record.is_file():
            console.print(f'{head}: has {run.record}', markup=False)
            continue
        console.rule(head.replace('[', r'\['), align='left')
        if run.row.checkpoint is None:
            _call('tools/train.py', train_arguments(run, args.cfg_options), run, args.gpus)
        _call('tools/test.py', test_arguments(run, suite.metrics, args.cfg_options), run, 1)


def _call(tool: str, arguments, run: Run, gpus: int) -> None:
    command = [sys.executable, str(ROOT / tool), *arguments]
    if gpus > 1:
        command[1:1] = ['-m', 'torch.distributed.run', f'--nproc_per_node={gpus}']
        # --cfg-options takes all that follows it, so this goes first
        tool_at = command.index(str(ROOT / tool))
        command[tool_at + 1 : tool_at + 1] = ['--launcher', 'pytorch']
    environment = dict(os.environ)
    environment.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    if subprocess.run(command, env=environment).returncode:
        raise SystemExit(
            f'{tool} of {run.row.name!r}, seed {run.seed}, '
            'failed. The same command goes on from here once '
            'the cause is mended.'
        )


def suite_tables(suite: Suite, args):
    """Tables of the records that a suite has.

    Raises:
        ValueError: If it has none.
    """
    paths = finished_records(suite)
    if not paths:
        raise ValueError(
            f'suite {suite.name} has no records in {suite.work_dir}; --seeds N makes them'
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
    main()
