"""Jobs side by side: each starts as soon as what it needs is done."""

import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Callable, Dict, Optional, Sequence

from rich.console import Console


@dataclass
class Job:
    """One piece of work.

    Args:
        name: Unique name.
        title: What the screen says.
        work: Does it; returns its seconds, or None where there was nothing
            left to do. Waits for processes rather than computing: jobs are
            threads.
        needs: Names of the jobs that must be done before.
        minutes: Typical duration, in any unit that all jobs share.
    """

    name: str
    title: str
    work: Callable[[], Optional[float]]
    needs: Sequence[str] = ()
    minutes: float = 1.0


def run_jobs(jobs: Sequence[Job], side_by_side: int, console: Console) -> None:
    """Runs all jobs, in their order as far as needs allow.

    Prints a line for every job that starts, with the time that is left as
    the jobs so far say. After a failure no job starts, those that run end,
    and the first failure is raised.

    Raises:
        ValueError: If a job needs one that is not before it in the list.
    """
    names = [job.name for job in jobs]
    for number, job in enumerate(jobs):
        unknown = set(job.needs) - set(names[:number])
        if unknown:
            raise ValueError(f'job {job.name} needs {sorted(unknown)}, which is not before it')
    waiting = list(jobs)
    running: Dict[object, Job] = {}
    done, typical, measured = set(), 0.0, 0.0
    failure = None
    start = time.monotonic()
    with ThreadPoolExecutor(side_by_side) as pool:
        while waiting and failure is None or running:
            ready = [job for job in waiting if done.issuperset(job.needs)]
            for job in ready[: side_by_side - len(running)] if failure is None else ():
                waiting.remove(job)
                left = ''
                if typical:
                    rest = sum(x.minutes for x in [job, *waiting, *running.values()])
                    minutes = rest * measured / typical / side_by_side / 60
                    left = f' · {(time.monotonic() - start) / 60:.0f} min so far, about '
                    left += f'{max(minutes, 1):.0f} left'
                console.rule(
                    f'\\[{names.index(job.name) + 1}/{len(jobs)}] {job.title}{left}', align='left'
                )
                running[pool.submit(job.work)] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                try:
                    seconds = future.result()
                except BaseException as error:
                    failure = failure or error
                    continue
                done.add(job.name)
                if seconds is not None:
                    typical, measured = typical + job.minutes, measured + seconds
    if failure is not None:
        raise failure
