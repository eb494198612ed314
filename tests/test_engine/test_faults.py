"""A part of the matrix of faults; ``python -m tests.test_engine.faults`` takes all."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_engine.faults import FAULTS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_fault_is_an_exact_continuation_or_one_error_that_names_it():
    names = ('kill', 'cut_labels', 'gradient_nan')
    done = subprocess.run(
        [sys.executable, '-m', 'tests.test_engine.faults', *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    rows = [line for line in done.stdout.splitlines() if line.startswith('| ')]
    assert [row.split(' | ')[0][2:] for row in rows[2:]] == [FAULTS[n].title for n in names]
