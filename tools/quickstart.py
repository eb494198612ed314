"""Teacher, baseline and RadOcc student on the synthetic world, in one table.

Runs the tools a user runs, one process a step, and goes on where an earlier
run stopped. ``make quickstart`` calls it after the set-up.
"""

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

from mmengine.config import Config
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from radocc_plugin.evaluation import config_hash
from radocc_plugin.evaluation.training_log import seconds_per_step
from radocc_plugin.fileio import write_atomically

TEACHER = 'projects/OccTeacher/configs/occ-teacher-fusion_tiny-near_1xb1-1200i_synthetic.py'
NAME = 'bevdet-occ_tiny-near-60-labels_1xb2-1600i_synthetic.py'
BASELINE = f'projects/BEVDetOcc/configs/{NAME}'
RADOCC = f'configs/radocc/radocc_{NAME}'
KEYFRAME = 'configs/ablation/ablation-paper_bevdet-occ_tiny-near_1xb1-1600i_synthetic.py'
VERSION = 'v1.0-synthetic'

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
        lane: Steps one after another with a lane run beside those of the
            other lanes, one thread each.
    """

    name: str
    title: str
    command: List[str]
    minutes: float
    folder: Optional[Path] = None
    training: bool = False
    lane: Optional[str] = None


def parse_args() -> argparse.Namespace:
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
        default=(500, 700),
        metavar=('TEACHER', 'STUDENT'),
        help='training steps',
    )
    add(
        '--label-every',
        type=int,
        default=6,
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
    return parser.parse_args()


def synthetic_steps(args: argparse.Namespace) -> List[Step]:
    """From an empty folder to table and pictures."""
    data, work = args.data_root, args.work_dir
    steps = [
        Step(
            'world',
            'draw the synthetic nuScenes world',
            [
                'tools/create_synthetic_nuscenes.py',
                '--root-path',
                data,
                '--scenes-train',
                args.scenes[0],
                '--scenes-val',
                args.scenes[1],
                '--frames',
                args.keyframes,
                '--image-size',
                400,
                225,
            ],
            3,
        ),
        Step(
            'infos',
            'convert it to info files',
            ['tools/create_data.py', 'occ3d-nuscenes', '--root-path', data, '--version', VERSION],
            0.4,
        ),
    ]
    steps += _train_and_test(
        args, 'teacher', 'LiDAR-camera teacher', TEACHER, 'teacher', args.seeds[0], [], 4.5, 'a'
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
            7,
            'a',
        )
        steps += _train_and_test(
            args,
            f'baseline{suffix}',
            'BEVDet-Occ, camera only',
            BASELINE,
            'baseline',
            seed,
            labels,
            6,
            'b',
        )
    last = args.scenes[1] * args.keyframes - 1
    pictures = ['tools/visualize.py', '--out-dir', work / 'pictures']
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
    lane: str,
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
            lane=lane,
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
            lane=lane,
        ),
    ]


def keyframe_steps(args: argparse.Namespace) -> List[Step]:
    """The real nuScenes keyframe through every stage."""
    data = args.work_dir / 'keyframe' / 'data'
    command = [
        'tools/run_keyframe.py',
        KEYFRAME,
        '--data-root',
        data,
        '--out-dir',
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
                '--root-path',
                args.shared / 'data' / 'nuscenes_frame',
                '--out-dir',
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
    # Passive: see tools/train.py.
    environment = dict(os.environ, PYTHONUNBUFFERED='1')
    environment.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    if step.lane:
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
        who = f'{step.name}: ' if step.lane else ''
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
    """Runs what is not done yet and returns the seconds of every step."""
    state = StateFile(work_dir / 'steps.json')
    numbered = list(enumerate(steps, 1))
    fresh = False
    for in_lanes, group in itertools.groupby(numbered, lambda item: item[1].lane is not None):
        group = list(group)
        lanes = sorted({step.lane for _, step in group if in_lanes}) or [None]
        with ThreadPoolExecutor(len(lanes)) as pool:
            # A step is done when it and all before it ran with these
            # commands; what an interrupted step left is of use only then.
            running = [
                pool.submit(
                    _run_lane,
                    [item for item in group if item[1].lane == lane],
                    len(steps),
                    state,
                    fresh,
                    work_dir,
                    console,
                )
                for lane in lanes
            ]
        # All lanes end before the first failure stops the whole.
        fresh = any([lane.result() for lane in running])
    return {step.name: state.steps[step.name]['seconds'] for step in steps}


def _run_lane(
    steps: list, total: int, state: StateFile, fresh: bool, work_dir: Path, console: Console
) -> bool:
    """Runs steps one after another; whether any of them was not done."""
    for number, step in steps:
        command = ' '.join([*map(str, step.command), *config_hashes(step)])
        before = state.steps.get(step.name, {})
        fresh = fresh or before.get('command') != command
        head = f'[{number}/{total}] {step.title}'
        if not fresh and 'seconds' in before:
            console.print(
                f'{head}: done ({before["seconds"]:.0f} s)', highlight=False, markup=False
            )
            continue
        console.rule(head.replace('[', r'\['), align='left')
        if fresh and step.folder is not None:
            shutil.rmtree(ROOT / step.folder, ignore_errors=True)
        fresh = True
        state.put(step.name, command=command)
        seconds = run(step, number, work_dir, console)
        state.put(step.name, command=command, seconds=seconds)
    return fresh


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
    lanes = {step.lane: 0.0 for step in steps}
    for step in steps:
        lanes[step.lane] += step.minutes
    alone = lanes.pop(None)
    table.add_section()
    table.add_row(
        '', 'together, training side by side', f'{alone + max(lanes.values(), default=0):.0f}'
    )
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


def main() -> None:
    args = parse_args()
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


if __name__ == '__main__':
    main()
