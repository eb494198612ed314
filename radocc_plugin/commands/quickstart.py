"""Teacher, baseline and RadOcc student on the synthetic world, in one table.

    python tools/reproduce_table.py quickstart --work-dir work_dirs/quickstart

Runs the tools a user runs, one process a step, and goes on where an earlier
run stopped. ``make quickstart`` calls it after the set-up.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Sequence, Set

from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from radocc_plugin.commands.jobs import Job, run_jobs
from radocc_plugin.config_file import shipped_root
from radocc_plugin.evaluation import config_hash
from radocc_plugin.evaluation.training_log import seconds_per_step
from radocc_plugin.fileio import write_atomically

TEACHER = 'projects/OccTeacher/configs/occ-teacher-fusion_tiny-near_1xb1-1200i_synthetic.py'
NAME = 'bevdet-occ_tiny-near-12-labels_1xb2-1600i_synthetic.py'
BASELINE = f'projects/BEVDetOcc/configs/{NAME}'
RADOCC = f'configs/radocc/radocc_{NAME}'
KEYFRAME = 'configs/ablation/ablation-paper_bevdet-occ_tiny-near_1xb1-1600i_synthetic.py'
VERSION = 'v1.0-synthetic'
ROOT = shipped_root()
SIDE_BY_SIDE = 2

# Lines of MMEngine's log that are worth the screen.
PROGRESS = re.compile(
    r'((?:Epoch|Iter)\((?:train|val|test)\) +\[ *[^ ]*\]).*?'
    r'( time: [\d.]+).*?(?:( loss: .*)|$)'
)


@dataclass
class Step:
    """One process of the quickstart.

    Args:
        name: Key in the state file.
        title: What the screen says.
        command: Arguments of the Python process.
        minutes: Typical duration on 2 cores.
        folder: What to delete when the command has changed; None for tools
            that look after their own folder.
        training: Whether its output is an MMEngine log, shown in part.
        needs: Names of the steps that it waits for; None for all before it.
            Steps that say so run side by side, one thread each.
    """

    name: str
    title: str
    command: List[str]
    minutes: float
    folder: Optional[Path] = None
    training: bool = False
    needs: Optional[Sequence[str]] = None


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--work-dir', type=Path, default=Path('work_dirs/quickstart'))
    add('--data-root', type=Path, default=Path('data/synthetic'))
    add('--shared', type=Path, help='folder with data/nuscenes_frame')
    add(
        '--scenes',
        nargs=2,
        type=int,
        default=(60, 12),
        metavar=('TRAIN', 'VAL'),
        help='scenes of the synthetic world',
    )
    add('--keyframes', type=int, default=6, help='keyframes of a scene')
    add(
        '--steps',
        nargs=2,
        type=int,
        default=(500, 1200),
        metavar=('TEACHER', 'STUDENT'),
        help='training steps',
    )
    add(
        '--label-every',
        type=int,
        default=30,
        help='one keyframe in so many is labelled for the students',
    )
    add(
        '--seeds',
        nargs='+',
        type=int,
        default=[0],
        help='baseline and RadOcc are trained once with each',
    )
    add('--only', choices=['keyframe'], help='run this part alone')
    return parser.parse_args(argv)


def synthetic_steps(args: argparse.Namespace) -> List[Step]:
    """From an empty folder to table and pictures."""
    data, work = args.data_root, args.work_dir
    steps = [
        Step(
            'world',
            'draw the synthetic nuScenes world',
            [
                'tools/create_synthetic.py',
                '--data-root',
                data,
                '--scenes-train',
                args.scenes[0],
                '--scenes-val',
                args.scenes[1],
                '--frames',
                args.keyframes,
                # as much as the networks see
                '--image-size',
                320,
                180,
            ],
            2.7,
        ),
        Step(
            'infos',
            'convert it to info files',
            ['tools/create_data.py', 'occ3d-nuscenes', '--data-root', data, '--version', VERSION],
            0.2,
        ),
    ]
    steps += _train_and_test(
        args,
        'teacher',
        'LiDAR-camera teacher',
        TEACHER,
        'teacher',
        args.seeds[0],
        [],
        1.9,
        ['infos'],
    )
    teacher = checkpoint_of(args, 'teacher')
    labels = [f'train_dataloader.dataset.label_every={args.label_every}']
    for seed in args.seeds:
        suffix = '' if seed == args.seeds[0] else f'_seed{seed}'
        steps += _train_and_test(
            args,
            f'radocc{suffix}',
            'BEVDet-Occ + RadOcc',
            RADOCC,
            'radocc',
            seed,
            labels + [f'model.teacher.checkpoint={teacher}'],
            6.8,
            ['train_teacher'],
        )
        steps += _train_and_test(
            args,
            f'baseline{suffix}',
            'BEVDet-Occ, camera only',
            BASELINE,
            'baseline',
            seed,
            labels,
            4.8,
            ['infos'],
        )
    last = args.scenes[1] * args.keyframes - 1
    pictures = ['tools/visualize.py', 'predictions', '--out', work / 'pictures']
    for title, config, folder in [
        ('Teacher', TEACHER, 'teacher'),
        ('Baseline', BASELINE, 'baseline'),
        ('RadOcc', RADOCC, 'radocc'),
    ]:
        pictures += ['--model', title, config, checkpoint_of(args, folder)]
    pictures += [
        '--frames',
        last // 4,
        last - last // 4,
        '--unobserved',
        'hide',
        '--cfg-options',
        f'test_dataloader.dataset.data_root={data}',
    ]
    # Named one by one: records of other seeds may lie in the folder.
    records = [
        step.command[step.command.index('--record') + 1]
        for step in steps
        if '--record' in step.command
    ]
    return steps + [
        Step('pictures', 'draw predictions and renders of two frames', pictures, 0.5),
        Step(
            'table', 'write the table', ['tools/reproduce_table.py', *records, '--out', work], 0.1
        ),
    ]


def iterations(args: argparse.Namespace, name: str) -> int:
    """Training steps of the teacher or of a student."""
    return args.steps[name != 'teacher']


def checkpoint_of(args: argparse.Namespace, name: str) -> Path:
    return args.work_dir / name / f'iter_{iterations(args, name)}.pth'


def _train_and_test(
    args,
    name: str,
    title: str,
    config: str,
    role: str,
    seed: int,
    options: List[str],
    minutes: float,
    needs: Sequence[str],
) -> List[Step]:
    folder = args.work_dir / name
    steps = iterations(args, name)
    # No validation: every checkpoint is tested in a step of its own.
    options = options + [
        f'train_cfg.max_iters={steps}',
        f'train_cfg.val_begin={steps + 1}',
        f'param_scheduler.0.total_steps={steps}',
        f'train_dataloader.dataset.data_root={args.data_root}',
        f'val_dataloader.dataset.data_root={args.data_root}',
    ]
    return [
        Step(
            f'train_{name}',
            f'train: {title} (seed {seed})',
            [
                'tools/train.py',
                config,
                '--work-dir',
                folder,
                '--seed',
                seed,
                '--resume',
                '--cfg-options',
                *options,
            ],
            minutes,
            folder,
            training=True,
            needs=needs,
        ),
        Step(
            f'test_{name}',
            f'test:  {title} (seed {seed})',
            [
                'tools/test.py',
                config,
                checkpoint_of(args, name),
                '--work-dir',
                folder / 'test',
                '--train-dir',
                folder,
                '--record',
                args.work_dir / 'records' / f'{name}_record.json',
                '--name',
                title,
                '--role',
                role,
                '--family',
                'bevdet-occ_tiny-near',
                '--cfg-options',
                f'train_cfg.max_iters={steps}',
                f'test_dataloader.dataset.data_root={args.data_root}',
            ],
            0.7,
            training=True,
            needs=[f'train_{name}'],
        ),
    ]


def keyframe_steps(args: argparse.Namespace) -> List[Step]:
    """The real nuScenes keyframe through every stage."""
    data = args.work_dir / 'keyframe' / 'data'
    command = [
        'tools/visualize.py',
        'keyframe',
        KEYFRAME,
        '--data-root',
        data,
        '--out',
        args.work_dir / 'keyframe',
    ]
    for option, folder in [('--teacher', 'teacher'), ('--student', 'radocc')]:
        checkpoint = checkpoint_of(args, folder)
        # On its own, the keyframe runs through untrained models as well.
        if not args.only or checkpoint.exists():
            command += [option, checkpoint]
    return [
        Step(
            'keyframe_data',
            'real keyframe: labels from sweep and boxes',
            [
                'tools/create_data.py',
                'keyframe',
                '--data-root',
                args.shared / 'data' / 'nuscenes_frame',
                '--out',
                data,
            ],
            0.2,
        ),
        Step(
            'keyframe_segments',
            'real keyframe: segments',
            [
                'tools/generate_segments.py',
                '--data-root',
                data,
                '--ann-file',
                data / 'radocc_infos_val.pkl',
                '--out',
                data / 'segments',
            ],
            0.2,
            training=True,
        ),
        Step('keyframe', 'real keyframe: every stage, pictures', command, 0.5),
    ]


def run(step: Step, number: int, work_dir: Path, console: Console) -> float:
    """Runs a step and returns its seconds.

    The output of a training or test goes to ``<work dir>/logs`` with its
    progress on the screen, and its last lines if it fails; other tools write
    to the screen.

    Raises:
        SystemExit: If it fails.
    """
    log = work_dir / 'logs' / f'{number:02d}_{step.name}.log'
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.time()
    environment = dict(os.environ, PYTHONUNBUFFERED='1')
    if step.needs is not None:
        environment['OMP_NUM_THREADS'] = '1'
    process = subprocess.Popen(
        [sys.executable, *map(str, step.command)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE if step.training else None,
        stderr=subprocess.STDOUT if step.training else None,
        text=True,
    )
    tail: List[str] = []
    if step.training:
        who = f'{step.name}: ' if step.needs is not None else ''
        with log.open('w') as file:
            for line in process.stdout:
                file.write(line)
                tail = (tail + [line])[-25:]
                match = PROGRESS.search(line)
                if match:
                    parts = ''.join(filter(None, match.groups()))
                    console.print(
                        f'  {who}{parts}',
                        highlight=False,
                        markup=False,
                        overflow='ellipsis',
                        no_wrap=True,
                    )
    if process.wait():
        console.print(''.join(tail), markup=False, highlight=False, soft_wrap=True)
        console.print(
            f'[red]Step "{step.title}" failed.[/] The same command '
            'goes on from here once the cause is mended.'
        )
        raise SystemExit(1)
    return time.time() - start


class StateFile:
    """Which steps ran, with which commands and in how many seconds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.steps = json.loads(path.read_text()) if path.exists() else {}
        self.lock = threading.Lock()

    def put(self, name: str, **entry) -> None:
        with self.lock:
            self.steps[name] = entry
            write_atomically(self.path, json.dumps(self.steps, indent=2))


def run_all(steps: List[Step], work_dir: Path, console: Console) -> dict:
    """Runs what is not done yet and returns the seconds of every step.

    A step is done when it and all that it needs ran with these commands;
    what an interrupted step left is of use only then.
    """
    state = StateFile(work_dir / 'steps.json')
    fresh: Set[str] = set()
    names = [step.name for step in steps]

    def job(number: int, step: Step) -> Job:
        needs = names[:number] if step.needs is None else step.needs

        def work() -> Optional[float]:
            command = ' '.join([*map(str, step.command), *config_hashes(step)])
            before = state.steps.get(step.name, {})
            changed = before.get('command') != command or not fresh.isdisjoint(needs)
            if not changed and 'seconds' in before:
                console.print(
                    f'{step.title}: done ({before["seconds"]:.0f} s)', highlight=False, markup=False
                )
                return None
            fresh.add(step.name)
            if changed and step.folder is not None:
                shutil.rmtree(ROOT / step.folder, ignore_errors=True)
            state.put(step.name, command=command)
            seconds = run(step, number + 1, work_dir, console)
            state.put(step.name, command=command, seconds=seconds)
            return seconds

        return Job(step.name, step.title, work, needs, step.minutes)

    run_jobs([job(*item) for item in enumerate(steps)], SIDE_BY_SIDE, console)
    return {step.name: state.steps[step.name]['seconds'] for step in steps}


def config_hashes(step: Step) -> List[str]:
    """Hashes of the configs a step names, so that an edit repeats it."""
    configs = [str(c) for c in step.command if str(c).endswith('.py')][1:]
    return [
        config_hash(Config.fromfile(ROOT / c, import_custom_modules=False).to_dict())
        for c in configs
    ]


def announce(steps: List[Step], console: Console) -> None:
    table = Table(title='What this will do (typical minutes on 2 cores)')
    table.add_column('step', justify='right')
    table.add_column('what')
    table.add_column('min', justify='right')
    for number, step in enumerate(steps, 1):
        table.add_row(str(number), step.title, f'{step.minutes:.1f}')
    alone = sum(step.minutes for step in steps if step.needs is None)
    beside = sum(step.minutes for step in steps if step.needs is not None)
    table.add_section()
    table.add_row('', 'together, training side by side', f'{alone + beside / SIDE_BY_SIDE:.0f}')
    console.print(table)


def summarise(steps: List[Step], seconds: dict, work_dir: Path, console: Console) -> None:
    table = Table(title='Where the time went')
    for name in ('step', 'seconds', 'seconds a training step'):
        table.add_column(name, justify='left' if name == 'step' else 'right')
    for step in steps:
        per_step = seconds_per_step(step.folder) if step.folder else None
        table.add_row(
            step.title, f'{seconds[step.name]:.0f}', '' if per_step is None else f'{per_step:.2f}'
        )
    console.print(table)
    console.print(f'Everything is under {work_dir}', highlight=False)


def main(argv=None) -> None:
    args = parse_args(argv)
    os.chdir(ROOT)
    console = Console()
    steps = [] if args.only else synthetic_steps(args)
    frame = args.shared and args.shared / 'data' / 'nuscenes_frame'
    if frame and frame.is_dir():
        steps += keyframe_steps(args)
    elif args.only == 'keyframe':
        raise ValueError(f'--shared takes a folder with data/nuscenes_frame, got {args.shared}')
    announce(steps, console)
    seconds = run_all(steps, args.work_dir, console)
    summarise(steps, seconds, args.work_dir, console)
    # The table last, where it is seen; its own step wrote it to files.
    for step in steps:
        if step.name == 'table':
            run(step, 0, args.work_dir, console)
