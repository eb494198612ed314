"""Faults in a tiny distilled training of two processes, and what becomes of it.

    python -m tests.test_engine.faults                    # all, the table of docs/reliability.md
    python -m tests.test_engine.faults kill teacher_nan   # some
    python -m tests.test_engine.faults --seed 3           # at other steps and processes
    python -m tests.test_engine.faults --family fbocc     # with another student

Real files, loaders, student, teacher and hooks; the processes are forks of
this one, so that a training takes seconds. As ``torchrun`` does, the others
are ended when one has failed.
"""

import argparse
import errno
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, init_default_scope
from mmengine.runner import Runner

from radocc_plugin import fileio
from radocc_plugin.datasets.info_file import load_infos
from radocc_plugin.engine import set_start
from radocc_plugin.engine.start import start_processes
from tests.support.models import build_model, load_config

CONFIG = 'configs/radocc/radocc_{}_tiny-near_1xb1-1600i_synthetic.py'
FAMILIES = ('bevdet-occ', 'flashocc', 'bevformer-occ', 'fbocc')
TEACHER = 'projects/OccTeacher/configs/occ-teacher-fusion_tiny-near_1xb1-1200i_synthetic.py'
STEPS, PROCESSES, LIMIT = 4, 2, 150
# Kinds of outcome.
SAME, SKIPS, STOPS = 'the same bits', 'that step is skipped', 'one error'
# Modules whose outputs are the logits, by family.
HEADS = ('occ_head', 'pts_bbox_head')


@HOOKS.register_module(force=True)
class FailAt(Hook):
    """Lets one process fail in one step.

    Args:
        rank: The process.
        step: The training step, from 0.
        where: Key of ``FAULTS``.
    """

    priority = 'VERY_HIGH'

    def __init__(self, rank: int, step: int, where: str) -> None:
        self.rank, self.step, self.where = rank, step, where

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if get_rank() == self.rank and runner.iter == self.step:
            FAULTS[self.where].inject(runner)


def _raise(runner):
    raise RuntimeError('made to fail')


def _kill(runner):
    os.kill(os.getpid(), signal.SIGKILL)


def _nan_logits(runner, part: str):
    distiller = runner.model.module
    model = distiller.student
    if part == 'teacher':
        model = distiller.teacher.model(torch.device('cpu'))

    def poison(module, inputs, outputs):
        handle.remove()
        return outputs * torch.nan

    handle = next(m for n, m in model.named_modules() if n in HEADS).register_forward_hook(poison)


def _nan_gradient(runner):
    parameter = next(p for p in runner.model.module.student.parameters() if p.requires_grad)

    def poison(gradient):
        handle.remove()
        return gradient * torch.nan

    handle = parameter.register_hook(poison)


def _full_disk(runner):
    def fsync(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fileio.os.fsync = fsync


def _kill_before_renaming(runner):
    replace = os.replace

    def killed(source, target):
        if str(target).endswith('.pth'):
            _kill(runner)
        replace(source, target)

    fileio.os.replace = killed


def _kill_while_saving(runner):
    fsync = os.fsync

    def killed(descriptor):
        path = Path(os.readlink(f'/proc/self/fd/{descriptor}'))
        if '.pth.' in path.name:
            os.truncate(descriptor, path.stat().st_size // 2)
            _kill(runner)
        fsync(descriptor)

    fileio.os.fsync = killed


def _kill_worker(runner):
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()


def _damage(root: Path, kind: str, cut: bool) -> Path:
    """Cuts a file of the last training keyframe in half, or takes it away."""
    info = load_infos(root / 'radocc_infos_train.pkl')['data_list'][-1]
    paths = dict(
        image=info['images']['CAM_FRONT']['img_path'],
        labels=info['occ_path'],
        points=info['lidar_points']['lidar_path'],
    )
    path = root / paths[kind]
    shutil.copy(path, path.with_name(path.name + '.kept'))
    if cut:
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.unlink()
    return path


@dataclass
class Fault:
    """What fails, how, and what must come of it.

    Args:
        title: In the table.
        outcome: ``SAME``, ``SKIPS`` or ``STOPS``.
        inject: Called in the process and step; None for a damaged file.
        file: ``image``, ``labels`` or ``points``: one to damage before the
            training; it must be named by the error.
        cut: Whether the file is cut in half or gone.
        says: What the error must hold.
        first: Only in process 0, which writes checkpoints.
    """

    title: str
    outcome: str
    inject: Optional[Callable] = None
    file: Optional[str] = None
    cut: bool = False
    says: str = ''
    first: bool = False


FAULTS: Dict[str, Fault] = dict(
    exception=Fault('an exception', STOPS, _raise, says='made to fail'),
    kill=Fault('`kill -9`', STOPS, _kill),
    kill_saving=Fault('`kill -9` in half of a checkpoint', STOPS, _kill_while_saving, first=True),
    kill_renaming=Fault(
        '`kill -9` before the renaming of a checkpoint', STOPS, _kill_before_renaming, first=True
    ),
    full_disk=Fault('a full disk', STOPS, _full_disk, says='No space left', first=True),
    student_nan=Fault(
        'NaN in logits of the student',
        STOPS,
        lambda runner: _nan_logits(runner, 'student'),
        says='NaN in occ_logits of the student, sample',
    ),
    teacher_nan=Fault(
        'NaN in logits of the teacher',
        STOPS,
        lambda runner: _nan_logits(runner, 'teacher'),
        says='NaN in occ_logits of the teacher, sample',
    ),
    gradient_nan=Fault('NaN in a gradient', SKIPS, _nan_gradient, says='not finite'),
    missing_image=Fault('an image is missing', STOPS, file='image'),
    cut_image=Fault('an image is cut off', STOPS, file='image', cut=True),
    cut_labels=Fault('a label file is cut off', STOPS, file='labels', cut=True),
    cut_points=Fault('a LiDAR file is cut off', STOPS, file='points', cut=True),
    worker=Fault('a loading process dies', STOPS, _kill_worker, says='DataLoader worker'),
    slow=Fault('a process is 5 s late', SAME, lambda runner: time.sleep(5)),
)


def make_world(folder: Path) -> Path:
    """Data root of eight training keyframes and a teacher's checkpoint."""
    from radocc_plugin.datasets.info_converter import convert_nuscenes
    from radocc_plugin.synthetic import generate

    root = folder / 'data'
    generate(
        root,
        scenes_train=2,
        scenes_val=1,
        frames=STEPS,
        image_size=(80, 45),
        workers=1,
        progress=False,
    )
    convert_nuscenes(str(root), 'v1.0-synthetic', progress=False)
    init_default_scope('mmengine')
    torch.save(dict(state_dict=build_model(TEACHER).state_dict()), folder / 'teacher.pth')
    return root


def _train(world: Path, folder: Path, family: str, fault: Optional[tuple]) -> None:
    config = load_config(CONFIG.format(family))
    config.merge_from_dict(
        {
            'work_dir': str(folder),
            'train_cfg.max_iters': STEPS,
            'train_cfg.val_interval': STEPS + 1,
            'default_hooks.checkpoint.interval': 1,
            'default_hooks.checkpoint.save_streams': True,
            'default_hooks.logger.interval': 1,
            'train_dataloader.dataset.data_root': str(world / 'data'),
            'model.teacher.checkpoint': str(world / 'teacher.pth'),
            'model.renderer.max_rays': 300,
            'experiment_name': f'faults_{folder.name}_{time.time_ns()}',
        }
    )
    for name in ('val_dataloader', 'val_cfg', 'val_evaluator', 'test_dataloader'):
        config[name] = None
    config.test_cfg = config.test_evaluator = None
    if fault:
        config.custom_hooks = [dict(type='FailAt', rank=fault[1], step=fault[2], where=fault[0])]
    start_processes(config, 'pytorch')
    set_start(config, 'auto')
    Runner.from_cfg(config).train()


def _process(rank: int, *work) -> None:
    folder = work[1]
    os.setsid()  # to be ended with its loading processes
    output = os.open(folder / f'rank{rank}.log', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    _train(*work)
    sys.stdout.flush()
    torch.distributed.barrier()
    os._exit(0)


def train(
    world: Path, folder: Path, family: str, fault: Optional[tuple] = None
) -> Tuple[bool, float, str]:
    """Trains, or goes on, in two processes.

    Args:
        world: Folder of ``make_world``.
        folder: Work folder of the training.
        family: Of the student.
        fault: ``(where, rank, step)``.

    Returns:
        Whether all ended well, the seconds until all had ended, and what
        they wrote.
    """
    folder.mkdir(exist_ok=True)
    os.environ.update(
        WORLD_SIZE=str(PROCESSES), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(_free_port())
    )
    fork = multiprocessing.get_context('fork')
    ranks = [
        fork.Process(target=_process, args=(rank, world, folder, family, fault))
        for rank in range(PROCESSES)
    ]
    start = time.time()
    for rank in ranks:
        rank.start()
    while any(r.is_alive() for r in ranks) and not any(r.exitcode for r in ranks):
        time.sleep(0.1)
        if time.time() - start > LIMIT:
            break
    late = time.time() - start > LIMIT
    time.sleep(0.5)  # the others say what they know
    for rank in ranks:
        try:
            os.killpg(rank.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        rank.join()
    text = '\n'.join((folder / f'rank{i}.log').read_text() for i in range(PROCESSES))
    if late:
        raise TimeoutError(f'{fault} still runs after {LIMIT} s:\n{text[-3000:]}')
    return not any(r.exitcode for r in ranks), time.time() - start, text


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def weights(folder: Path) -> dict:
    """Of the last checkpoint of a training that ended."""
    path = folder / f'iter_{STEPS}.pth'
    return torch.load(path, map_location='cpu', weights_only=False)['state_dict']


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def leftovers(folder: Path) -> List[str]:
    """Files that are half written or without a checksum."""
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.name.startswith('.')
        or (path.suffix == '.pth' and not Path(f'{path}.sha256').exists())
    )


def suffer(world: Path, folder: Path, family: str, name: str, whole: dict, seed: int) -> List[str]:
    """One fault, and the training after it; a row of the table.

    Raises:
        AssertionError: If the outcome is not that of ``FAULTS``.
    """
    fault = FAULTS[name]
    draw = random.Random(f'{seed} {name}')
    rank = 0 if fault.first else draw.randrange(PROCESSES)
    step = draw.randrange(1, STEPS)
    where = f'process {rank}, step {step + 1}'
    damaged, injected = None, (name, rank, step)
    if fault.file is not None:
        damaged, injected = _damage(world / 'data', fault.file, fault.cut), None
        where = damaged.name[:24]
    try:
        ended, seconds, text = train(world, folder, family, injected)
    finally:
        if damaged is not None:
            os.replace(damaged.with_name(damaged.name + '.kept'), damaged)
    said = _error(text, damaged.name if damaged else fault.says)
    context = f'{name} ({where}):\n{text[-4000:]}'
    if fault.outcome == STOPS:
        assert not ended, context
        assert said or (not fault.says and damaged is None), context
        ended, _, text = train(world, folder, family)
        assert ended, f'resumed after {context}\n{text[-4000:]}'
        outcome = 'stops; resumed, it ends with the same bits'
    else:
        assert ended, context
        outcome = SAME
    if fault.outcome == SKIPS:
        assert all(v.isfinite().all() for v in weights(folder).values()), context
        assert not same(weights(folder), whole), context
        assert said, context
        outcome = SKIPS
    else:
        assert same(weights(folder), whole), context
    assert not leftovers(folder), f'{leftovers(folder)} of {context}'
    return [fault.title, where, outcome, f'{seconds:.0f}', said[:110]]


def _error(text: str, says: str) -> str:
    """The line of a log that says what happened."""
    lines = [line.strip() for line in text.splitlines() if says and says in line]
    return lines[-1].replace('|', '/') if lines else ''


def run(names: List[str], folder: Path, family: str, seed: int = 0, report=print) -> None:
    """Lets a training suffer each fault; reports rows of a Markdown table."""
    torch.set_num_threads(1)
    make_world(folder)
    ended, _, text = train(folder, folder / 'whole', family)
    assert ended, text
    whole = weights(folder / 'whole')
    report('| fault | where | outcome | seconds until all had ended | what is said |')
    report('| --- | --- | --- | ---: | --- |')
    for name in names:
        row = suffer(folder, folder / name, family, name, whole, seed)
        report('| ' + ' | '.join(row) + ' |')


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('faults', nargs='*', choices=[*FAULTS, []], help='default: all')
    parser.add_argument('--family', choices=FAMILIES, default=FAMILIES[0], help='of the student')
    parser.add_argument('--seed', type=int, default=0, help='of steps and processes')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(args.faults or list(FAULTS), Path(folder), args.family, args.seed)


if __name__ == '__main__':
    main()
