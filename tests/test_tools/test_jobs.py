"""Jobs side by side."""

import threading
import time

import pytest
from rich.console import Console

from radocc_plugin.commands.jobs import Job, run_jobs


@pytest.fixture
def console():
    return Console(record=True, width=120, file=open('/dev/null', 'w'))


def recorder():
    """Events of jobs, in order, and a maker of such jobs."""
    events, lock = [], threading.Lock()

    def make(name, needs=(), error=None):
        def work():
            with lock:
                events.append(f'{name} begins')
            time.sleep(0.02)
            if error:
                raise error
            with lock:
                events.append(f'{name} ends')
            return 60.0

        return Job(name, name, work, needs)

    return events, make


@pytest.mark.parametrize('side_by_side', [1, 2, 3])
def test_a_job_begins_when_all_that_it_needs_has_ended(console, side_by_side):
    events, make = recorder()
    needs = dict(teacher=(), baseline=(), radocc=('teacher',), table=('baseline', 'radocc'))
    run_jobs([make(*item) for item in needs.items()], side_by_side, console)
    for name, before in needs.items():
        for other in before:
            assert events.index(f'{other} ends') < events.index(f'{name} begins')
    running = most = 0
    for event in events:
        running += 1 if event.endswith('begins') else -1
        most = max(most, running)
    assert most == min(side_by_side, 2)  # more cannot run by what they need


def test_the_screen_tells_what_is_left(console):
    _, make = recorder()
    run_jobs([make(name) for name in 'abc'], 1, console)
    screen = console.export_text()
    assert '[1/3] a' in screen and 'about 2 left' in screen and 'about 1 left' in screen


def test_after_a_failure_nothing_begins_and_what_runs_ends(console):
    events, make = recorder()
    jobs = [make('a', error=SystemExit('a failed')), make('b'), make('c'), make('d', ['a'])]
    with pytest.raises(SystemExit, match='a failed'):
        run_jobs(jobs, 2, console)
    assert 'b ends' in events and 'd begins' not in events


def test_a_need_that_is_not_there_is_named(console):
    _, make = recorder()
    with pytest.raises(ValueError, match=r"job a needs \['z'\]"):
        run_jobs([make('a', ['z'])], 1, console)
