"""What the tools run: each module a command with ``main(argv)``.

The top room of the package: a command may import every other room, none
imports a command.
"""

import os

# Before torch is loaded: OpenMP threads that spin while they wait make a CPU
# training four times slower as soon as anything else shares the cores.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
# Linux gives large tensors large pages where torch asks for them: a gradient
# of the volume is filled in half the time.
os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')

import argparse
import importlib
import sys
from pathlib import Path
from typing import Callable, Dict, List, Optional

PACKAGE = Path(__file__).resolve().parents[1]


def run(main: Callable) -> None:
    """Runs a command as a process does: what a user passed wrongly is one
    line on the screen, not a traceback.

    Only errors that this package raises on purpose; ``RADOCC_TRACEBACK=1``
    shows where.

    Raises:
        SystemExit: With 2 after such an error.
    """
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        if os.environ.get('RADOCC_TRACEBACK') or not _is_ours(error):
            raise
        print(f'error: {error}', file=sys.stderr)
        raise SystemExit(2) from None


def _is_ours(error: Exception) -> bool:
    """Whether the line that raised it is one of the package or its tools."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    raised = Path(trace.tb_frame.f_code.co_filename).resolve()
    return PACKAGE in raised.parents or raised.parent.name == 'tools'


def dispatch(
    description: str, commands: Dict[str, str], argv: Optional[List[str]] = None
) -> object:
    """Runs one of several commands, named by the first argument.

    Args:
        description: For ``--help``; its first line is the tool's.
        commands: Module in this package by name.
        argv: Arguments, default those of the process.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('command', choices=commands, help='see its own --help')
    name = parser.parse_args(argv[:1]).command
    return importlib.import_module(f'{__name__}.{commands[name]}').main(argv[1:])
