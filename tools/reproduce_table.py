"""Makes the comparison table from result records.

    python tools/reproduce_table.py work_dirs/quickstart --out work_dirs/table
    python tools/reproduce_table.py 'work_dirs/*/record.json' --quoted \\
        --update README.md
"""
import argparse
import glob
from pathlib import Path

from rich.console import Console

from radocc_plugin.evaluation.records import read_records
from radocc_plugin.evaluation.table import build_tables, read_quoted
from radocc_plugin.evaluation.table_formats import (to_html, to_markdown,
                                                    to_terminal)
from radocc_plugin.fileio import write_atomically

QUOTED = Path(__file__).parents[1] / 'docs' / 'published_results.yaml'
START, END = '<!-- results:start -->', '<!-- results:end -->'


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        'records',
        nargs='+',
        help='record files, globs, or folders to search for *record*.json')
    parser.add_argument(
        '--out', help='writes table.md and table.html into this folder')
    parser.add_argument(
        '--quoted',
        nargs='?',
        const=str(QUOTED),
        metavar='YAML',
        help='adds published rows (default: docs/published_results.yaml)')
    parser.add_argument(
        '--update',
        metavar='MARKDOWN',
        help=f'rewrites the table between {START} and {END} of this file')
    return parser.parse_args(argv)


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


def update_between_markers(path, markdown):
    """Replaces what a Markdown file has between the results markers.

    Raises:
        ValueError: If the file lacks the markers.
    """
    text = Path(path).read_text()
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f'{path}: takes a line {START} and, below it, a line '
                         f'{END}')
    write_atomically(path,
                     f'{before}{START}\n\n{markdown}\n{END}{after}')


def main(argv=None):
    args = parse_args(argv)
    tables = build_tables(read_records(record_paths(args.records)))
    if args.quoted:
        quoted = read_quoted(args.quoted)
        for table in tables:
            table.quoted = quoted
    console = Console()
    for table in tables:
        console.print(to_terminal(table))

    markdown = '\n'.join(to_markdown(table) for table in tables)
    if args.out:
        write_atomically(Path(args.out) / 'table.md', markdown)
        write_atomically(Path(args.out) / 'table.html', to_html(tables))
        console.print(f'{Path(args.out) / "table.md"}, table.html written')
    if args.update:
        update_between_markers(args.update, markdown)


if __name__ == '__main__':
    main()
