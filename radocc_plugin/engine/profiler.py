"""Seconds and peak memory of the stages of a model, while it runs."""

import statistics
import time
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import torch
from torch import nn

# What runs outside every named stage.
REST = 'rest'


class Stage(NamedTuple):
    """A stage over all repetitions.

    Args:
        seconds: Median of the repetitions, without the stages inside.
        cpu_seconds: The same in time of all threads of the process: what a
            stage costs while others use the cores too.
        peak: Most bytes in use while it ran, of the process on a CPU, of
            torch's tensors on CUDA; None where the system cannot tell.
        calls: Calls in one repetition.
    """

    seconds: float
    cpu_seconds: float
    peak: Optional[int]
    calls: int


class StageMeter:
    """Measures stages that may lie inside each other.

    A second spent counts for the innermost open stage; the peak counts for
    all open ones.

    Args:
        device: The device that the model runs on.
    """

    def __init__(self, device: torch.device = torch.device('cpu')) -> None:
        self.device = torch.device(device)
        self.reset()
        self._watched: List[Tuple[Any, str]] = []

    def reset(self) -> None:
        """Forgets what was measured."""
        self._runs: List[Dict[str, Tuple[float, float]]] = []
        self._calls: Dict[str, int] = {}
        self._peaks: Dict[str, int] = {}
        self._open: List[str] = []

    @contextmanager
    def repetition(self) -> Iterator[None]:
        """One run of everything; the median is over these."""
        self._runs.append({})
        self._calls = {}
        with self.stage(REST):
            yield

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts what runs inside for ``name``."""
        self._account()
        self._open.append(name)
        self._calls[name] = self._calls.get(name, 0) + 1
        try:
            yield
        finally:
            self._account()
            self._open.pop()

    @property
    def current(self) -> str:
        """The innermost open stage."""
        return self._open[-1] if self._open else REST

    def _account(self) -> None:
        """Books time and peak since the last call, then starts anew."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        now = time.perf_counter(), time.process_time()
        if self._open:
            name, run = self._open[-1], self._runs[-1]
            run[name] = tuple(
                so_far + end - start
                for so_far, end, start in zip(run.get(name, (0.0, 0.0)), now, self._since)
            )
            peak = peak_bytes(self.device)
            for name in self._open if peak is not None else ():
                self._peaks[name] = max(peak, self._peaks.get(name, 0))
        reset_peak(self.device)
        self._since = time.perf_counter(), time.process_time()

    def watch(self, name: str, owner: Any, method: str = 'forward') -> None:
        """Measures every call of a method of an object, till ``release``."""
        call = getattr(owner, method)

        def measured(*args, **kwargs):
            if not self._open:  # outside a repetition
                return call(*args, **kwargs)
            with self.stage(name):
                return call(*args, **kwargs)

        setattr(owner, method, measured)
        self._watched.append((owner, method))

    def release(self) -> None:
        """Gives all watched methods back."""
        for owner, method in reversed(self._watched):
            delattr(owner, method)
        self._watched.clear()

    def stages(self) -> Dict[str, Stage]:
        """What was measured, in the order of the first call."""
        stages = {}
        for name, calls in self._calls.items():
            times = zip(*(run.get(name, (0.0, 0.0)) for run in self._runs))
            stages[name] = Stage(*map(statistics.median, times), self._peaks.get(name), calls)
        return stages


def find_stages(model: nn.Module, device: torch.device) -> Dict[str, Tuple[Any, str]]:
    """Stages of a model: name -> object and method.

    These are the modules right inside the model (or inside a ``ModuleDict``
    there, which does not run itself), the depth net of a view transformer,
    the transformer of a head, and ``loss`` of modules that have one, method
    or module. Of a distiller they are those of student and teacher, the ray
    walk (``trace``), the renderer, and every consistency loss.
    """
    if hasattr(model, 'student') and hasattr(model, 'teacher'):
        stages = {
            f'student.{name}': stage for name, stage in find_stages(model.student, device).items()
        }
        teacher = find_stages(model.teacher.model(device), device)
        stages.update({f'teacher.{n}': stage for n, stage in teacher.items()})
        stages['renderer.trace'] = (model.renderer, 'trace')
        stages['renderer'] = (model.renderer, 'render_pair')
        for name, loss in model.losses.items():
            stages[f'losses.{name}'] = (loss, 'forward')
        return stages
    stages = {}
    for name, module in _running_children(model):
        stages[name] = (module, 'forward')
        for part in ('depth_net', 'transformer'):
            if isinstance(getattr(module, part, None), nn.Module):
                stages[f'{name}.{part}'] = (getattr(module, part), 'forward')
        loss = getattr(module, 'loss', None)
        if isinstance(loss, nn.Module):
            stages[f'{name}.loss'] = (loss, 'forward')
        elif callable(loss):
            stages[f'{name}.loss'] = (module, 'loss')
    return stages


def _running_children(model: nn.Module, prefix: str = '') -> Iterator[Tuple[str, nn.Module]]:
    for name, module in model.named_children():
        if isinstance(module, nn.ModuleDict):
            yield from _running_children(module, f'{prefix}{name}.')
        elif name != 'data_preprocessor':
            yield prefix + name, module


def reset_peak(device: torch.device) -> None:
    """Starts a new peak of memory."""
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        with open('/proc/self/clear_refs', 'w') as file:
            file.write('5')  # man 5 proc: resets VmHWM
    except OSError:
        pass


def peak_bytes(device: torch.device) -> Optional[int]:
    """Peak since ``reset_peak``; None where a CPU process cannot know it."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    try:
        with open('/proc/self/clear_refs', 'w'):
            pass
        with open('/proc/self/status') as file:
            (line,) = (line for line in file if line.startswith('VmHWM'))
    except OSError:
        return None
    return int(line.split()[1]) * 1024
