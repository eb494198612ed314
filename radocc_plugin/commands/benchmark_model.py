"""Seconds and peak memory of every stage of a model.

    python tools/benchmark.py model CONFIG [--test] [--batch N] [--repeat N] \\
        [--keyframe ../shared/data/nuscenes_frame] [--profile] \\
        [--operators] [--flops] [--out FILE] \\
        [--json FILE]

CONFIG is that of a student, a teacher or a distilled student; a step of the
last runs teacher, ray walk, renderer and consistency losses too. With --json
whole steps are measured, not taken apart: of a distilled student also without
RadOcc, and with a teacher that costs nothing, as from a cache. The sample
is the last one of the synthetic world (made once, under work_dirs/benchmark),
of the real keyframe with --keyframe, or of any data root with --data-root. It
goes through the config's own pipeline without random augmentation; segments,
if any, are squares.

A stage does not count the stages inside it. CPU seconds are those of all
threads, little moved by what else runs. On a CPU the peak is that of the whole
process, with everything that is kept for the backward pass.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional


import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from radocc_plugin.checkpoints import load_weights
from radocc_plugin.config_file import load_config
from radocc_plugin.engine import OperatorCounter, Stage, StageMeter, find_stages
from radocc_plugin.engine.profiler import peak_bytes, reset_peak
from radocc_plugin.evaluation.terminal import show_table
from radocc_plugin.fileio import write_atomically
from radocc_plugin.models.lift_splat import cost_volume
from radocc_plugin.registry import DATASETS, MODELS

SYNTHETIC = Path('work_dirs/benchmark/synthetic')
SQUARE = 20  # pixels; some 240 segments in a map of 225 x 400


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('config', help='config file')
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        '--train', action='store_true', help='losses, backward and optimizer (the default)'
    )
    mode.add_argument('--test', action='store_true', help='prediction only')
    add('--batch', type=int, default=1, help='copies of the sample')
    add('--repeat', type=int, default=3, help='the median of so many runs')
    add('--warm-up', type=int, default=1, help='runs before them')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    data = parser.add_mutually_exclusive_group()
    data.add_argument('--keyframe', help="folder of mmdet3d's demo keyframe")
    data.add_argument('--data-root', help='folder with radocc_infos_val.pkl')
    add('--checkpoint', help='weights; random ones without')
    add('--teacher', help="checkpoint of a distiller's teacher")
    add('--json', type=Path, help='JSON file of whole steps, in place of the stages')
    add('--profile', action='store_true', help='add the operators that take most time')
    add(
        '--operators',
        action='store_true',
        help='add the operators that each stage dispatches, which start '
        'kernels on a GPU; on a CPU, where the cost volume goes plane by '
        'plane, it is counted as a GPU takes it',
    )
    add(
        '--flops',
        action='store_true',
        help='add the multiply-adds of convolutions and matrix products; '
        'norms, sampling and pooling are not in it',
    )
    add('--out', type=Path, help='Markdown file of the tables')
    add('--cfg-options', nargs='+', action=DictAction, default={})
    args = parser.parse_args(argv)
    for name in ('batch', 'repeat'):
        if getattr(args, name) < 1:
            parser.error(f'--{name} takes a positive number')
    return args


def synthetic_root() -> str:
    """One short scene of the synthetic world with ten sweeps a keyframe."""
    from radocc_plugin.datasets.info_converter import convert_nuscenes
    from radocc_plugin.synthetic import generate

    generate(
        SYNTHETIC,
        scenes_train=0,
        scenes_val=1,
        frames=3,
        sweeps=9,
        image_size=(400, 225),
        workers=1,
    )
    if not (SYNTHETIC / 'radocc_infos_val.pkl').is_file():
        convert_nuscenes(str(SYNTHETIC), 'v1.0-synthetic')
    return str(SYNTHETIC)


def load_sample(config: Config, data_root: str, train: bool) -> dict:
    """The last sample of a data root, as the config's pipeline makes it."""

    def innermost(loader: dict) -> dict:
        dataset = loader.dataset
        while 'dataset' in dataset:  # a wrapper that repeats or balances
            dataset = dataset.dataset
        return dataset

    dataset = innermost(config.train_dataloader if train else config.test_dataloader)
    test = innermost(config.test_dataloader).pipeline
    # The training pipeline's loads with the test's images.
    pipeline = [
        t
        for t in dataset.pipeline
        if t.type.split('.')[-1] not in ('AugmentMultiViewImages', 'AugmentBEV', 'LoadSegments')
    ]
    augment = [t for t in test if 'AugmentMultiView' in t.type]
    # A teacher's own inputs are made of raw images.
    raw = 1 + sum('TeacherPipeline' in t.type for t in pipeline)
    pipeline = pipeline[:raw] + augment + pipeline[raw:]
    samples = DATASETS.build(
        dict(
            dataset,
            data_root=data_root,
            test_mode=True,
            ann_file='radocc_infos_val.pkl',
            pipeline=pipeline,
        )
    )
    sample = samples[len(samples) - 1]
    for transform in dataset.pipeline:
        if 'LoadSegments' in transform.type:
            height, width = transform.size
            rows = torch.arange(height)[:, None] // SQUARE
            columns = torch.arange(width) // SQUARE
            segments = (rows * width + columns + 1).int()
            cameras = len(sample['inputs']['img'])
            sample['data_samples'].segments = segments.repeat(cameras, 1, 1)
    return sample


def build(model: dict, teacher_checkpoint: Optional[str] = None):
    """The model with random weights: speed does not depend on them."""
    if 'teacher' in model:
        teacher = model['teacher']
        teacher['checkpoint'] = teacher_checkpoint
        if isinstance(teacher['model'], str):
            teacher['model'] = load_config(teacher['model']).model
    elif teacher_checkpoint:
        raise ValueError('--teacher takes the config of a distilled student')
    drop_init_cfg(model)
    return MODELS.build(model)


def drop_init_cfg(config: dict) -> None:
    """Without ``init_cfg`` nothing is downloaded."""
    config.pop('init_cfg', None)
    for value in config.values():
        if isinstance(value, dict):
            drop_init_cfg(value)


def measure(
    model, batch: dict, step: Callable, device, *, repeat: int, warm_up: int
) -> Dict[str, Stage]:
    """Runs a step again and again and returns its stages."""
    meter = StageMeter(device)
    for name, stage in find_stages(model, device).items():
        meter.watch(name, *stage)
    try:
        for run in range(-warm_up, repeat):
            if run == 0:
                meter.reset()
            with meter.repetition():
                step(model, batch, meter)
    finally:
        meter.release()
    return meter.stages()


def test_step(model, batch: dict, meter: StageMeter) -> None:
    model.eval()
    with torch.no_grad():
        data = model.data_preprocessor(batch, False)
        model(**data, mode='predict')


def make_train_step(model, optim_wrapper: dict) -> Callable:
    """Losses, backward and optimizer, as the runner does them."""
    optimizer = build_optim_wrapper(model, optim_wrapper)

    def step(model, batch: dict, meter: StageMeter) -> None:
        model.train()
        data = model.data_preprocessor(batch, True)
        with optimizer.optim_context(model):
            losses = model(**data, mode='loss')
        total, _ = model.parse_losses(losses)
        with meter.stage('backward'):
            optimizer.backward(total)
        with meter.stage('optimizer'):
            optimizer.step()
            optimizer.zero_grad()

    return step


def stage_rows(stages: Dict[str, Stage], loaded: Optional[int]) -> List[List[str]]:
    """Rows of the table: stage, calls, seconds, CPU seconds, share, peak."""
    total = sum(stage.seconds for stage in stages.values())
    cpu_total = sum(stage.cpu_seconds for stage in stages.values())
    peaks = [stage.peak for stage in stages.values() if stage.peak]

    def row(name, stage):
        return [
            name,
            str(stage.calls),
            f'{stage.seconds:.3f}',
            f'{stage.cpu_seconds:.3f}',
            f'{100 * stage.seconds / total:.1f} %',
            gibibytes(stage.peak),
        ]

    loaded_row = ['model and batch loaded', *'----', gibibytes(loaded)]
    everything = Stage(total, cpu_total, max(peaks, default=None), 1)
    return [
        loaded_row,
        *(row(name, stage) for name, stage in stages.items()),
        row('all', everything),
    ]


def gibibytes(number: Optional[int]) -> str:
    return '-' if number is None else f'{number / 2**30:.2f}'


def remember_teacher(distiller) -> None:
    """Lets the teacher say again what it says first."""
    ask, said = distiller.teacher.outputs, []

    def outputs(*args, **kwargs):
        if not said:
            said.append(ask(*args, **kwargs))
        return said[0]

    distiller.teacher.outputs = outputs


def whole_steps(model, batch: dict, optim_wrapper: dict, device, args) -> Iterator[dict]:
    """Of a model, and of a distiller's student alone and with a teacher that
    costs nothing: config, part, batch, and ``whole_step``."""
    parts = [('all', model)]
    if hasattr(model, 'teacher'):
        parts = [('student', model.student), *parts, ('cached teacher', model)]
    for part, module in parts:
        if part == 'cached teacher':
            remember_teacher(model)
        step = test_step if args.test else make_train_step(module, optim_wrapper)
        result = whole_step(module, batch, step, device, repeat=args.repeat, warm_up=args.warm_up)
        yield dict(config=Path(args.config).stem, part=part, batch=args.batch, **result)


def whole_step(model, batch: dict, step: Callable, device, *, repeat: int, warm_up: int) -> dict:
    """Median seconds of a step that is not taken apart, its peak in bytes
    and, on CUDA, the kernels that it starts."""
    meter = StageMeter(device)
    seconds = []
    for run in range(-warm_up, repeat):
        if run == 0:
            seconds.clear()
            reset_peak(device)
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        begin = time.perf_counter()
        with meter.repetition():
            step(model, batch, meter)
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begin)
    result = dict(seconds=statistics.median(seconds), peak=peak_bytes(device))
    if device.type == 'cuda':
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            with meter.repetition():
                step(model, batch, meter)
        result['kernels'] = sum(
            event.count for event in profiler.key_averages() if 'LaunchKernel' in event.key
        )
    return result


def operator_rows(step: Callable, model, batch: dict, device, limit: int = 12) -> List[List[str]]:
    """The operators that take most time by themselves: name, calls, s, %."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if device.type == 'cuda':
        activities.append(ProfilerActivity.CUDA)
    meter = StageMeter(device)
    with profile(activities=activities) as profiler, meter.repetition():
        step(model, batch, meter)

    def microseconds(event) -> float:
        if device.type != 'cuda':
            return event.self_cpu_time_total
        # renamed in torch 2.4
        return getattr(event, 'self_device_time_total', getattr(event, 'self_cuda_time_total', 0.0))

    events = sorted(profiler.key_averages(), key=microseconds, reverse=True)
    total = sum(map(microseconds, events)) or 1.0
    return [
        [
            event.key,
            str(event.count),
            f'{microseconds(event) / 1e6:.3f}',
            f'{100 * microseconds(event) / total:.1f} %',
        ]
        for event in events[:limit]
    ]


def count_operators(step: Callable, model, batch: dict, device) -> List[List[str]]:
    """Operators that a step dispatches: stage, operators, share."""
    meter = StageMeter(device)
    for name, stage in find_stages(model, device).items():
        meter.watch(name, *stage)
    by_planes = cost_volume.costs_by_planes
    cost_volume.costs_by_planes = cost_volume.costs_by_channels
    try:
        with OperatorCounter(lambda: meter.current) as counter:
            with meter.repetition():
                step(model, batch, meter)
    finally:
        cost_volume.costs_by_planes = by_planes
        meter.release()
    rows = [
        [name, str(number), f'{100 * number / counter.total:.1f} %']
        for name, number in counter.counts.most_common()
    ]
    return [*rows, ['all', str(counter.total), '100.0 %']]


def count_flops(step: Callable, model, batch: dict, device) -> List[List[str]]:
    """Multiply-adds of a step: modules of the model, GFLOPs, share."""
    meter = StageMeter(device)
    with FlopCounterMode(display=False) as counter, meter.repetition():
        step(model, batch, meter)
    total = counter.get_total_flops()
    counts = {
        name.split('.')[1]: sum(operators.values())
        for name, operators in counter.get_flop_counts().items()
        if name.count('.') == 1
    }
    return [
        [name, f'{count / 2e9:.1f}', f'{100 * count / total:.1f} %']
        for name, count in [*counts.items(), ('all', total)]
        if count
    ]


def main(argv=None) -> None:
    args = parse_args(argv)
    console = Console()
    MMLogger.get_instance('benchmark', log_level='WARNING')
    device = torch.device(args.device)
    config = load_config(args.config, options=args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmengine'))
    with tempfile.TemporaryDirectory() as folder:
        data_root = args.data_root
        if args.keyframe:
            from radocc_plugin.datasets.keyframe import convert_keyframe

            convert_keyframe(args.keyframe, folder)
            data_root = folder
        sample = load_sample(config, data_root or synthetic_root(), not args.test)
    batch = pseudo_collate([sample] * args.batch)
    model = build(config.model, args.teacher)
    if args.checkpoint:
        load_weights(model, args.checkpoint)
    if args.test:  # the student alone
        model = getattr(model, 'student', model)
    model = model.to(device)
    if args.json:
        parts = []
        for part in whole_steps(model, batch, config.optim_wrapper, device, args):
            parts.append(part)  # kept though the next one runs out of time
            write_atomically(args.json, json.dumps(parts) + '\n')
        return
    step = test_step if args.test else make_train_step(model, config.optim_wrapper)
    reset_peak(device)
    loaded = peak_bytes(device)
    stages = measure(model, batch, step, device, repeat=args.repeat, warm_up=args.warm_up)

    name = Path(args.config).stem
    place = (
        torch.cuda.get_device_name(device)
        if device.type == 'cuda'
        else f'CPU, {torch.get_num_threads()} threads'
    )
    title = (
        f'{name}, {"test" if args.test else "training"}, batch '
        f'{args.batch}, {place}, median of {args.repeat}'
    )
    text = show_table(
        console,
        title,
        ['stage', 'calls', 'seconds', 'CPU s', 'share', 'peak GiB'],
        stage_rows(stages, loaded),
    )
    parts = [
        (
            args.profile,
            'operators by their own time',
            ['operator', 'calls', 'seconds', 'share'],
            operator_rows,
        ),
        (
            args.operators,
            'operators dispatched in one step',
            ['stage', 'operators', 'share'],
            count_operators,
        ),
        (args.flops, 'multiply-adds of one step', ['module', 'GFLOPs', 'share'], count_flops),
    ]
    for wanted, what, columns, measure_rows in parts:
        if wanted:
            rows = measure_rows(step, model, batch, device)
            text += '\n' + show_table(console, f'{name}, {what}', columns, rows)
    if args.out:
        write_atomically(args.out, text)
        console.print(f'Markdown: {args.out}', highlight=False)
