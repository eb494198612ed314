"""Times the renderer's backends against an author-style renderer.

    python tools/benchmark.py rendering                 # everything
    python tools/benchmark.py rendering --rays 6x28x50 --scenes foggy
    python tools/benchmark.py rendering --device cuda --json rendering.json

Every number of a table comes from one process in which the variants take
turns; only their ratios mean something. All start from the same leaf, the
occupancy logits (200 x 200 x 16 voxels, 18 classes), and end in its gradient.
The baseline is a plain renderer written from the formulas of the author's
development code: 287 samples a ray, trilinear interpolation of density and 17
logits, dense [rays, samples, classes] arrays, autograd.
"""

import argparse
import ctypes
import gc
import json
import statistics
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import torch
from mmengine.utils import track_iter_progress
from torch import Tensor


from radocc_plugin import occ3d
from radocc_plugin.fileio import write_atomically
from radocc_plugin.geometry import Cameras, VoxelGrid, draw_rays
from radocc_plugin.rendering import (
    RenderGeometry,
    render_like_author,
    render_logits,
    render_logits_pair,
    voxel_light_of_logits,
)
from radocc_plugin.synthetic.sensors import make_rig

GRID = VoxelGrid(occ3d.POINT_CLOUD_RANGE, occ3d.GRID_SHAPE)
NUM_CLASSES = len(occ3d.CLASSES)


class Draw(NamedTuple):
    """Render size, cap of the rays, samples of the batch."""

    size: Tuple[int, int]
    cap: Optional[int] = None
    batch: int = 1


RAYS = {
    '6x8x14': Draw((8, 14)),
    '6x28x50': Draw((28, 50)),
    '6x56x100': Draw((56, 100)),
    'random-38400': Draw((900, 1600), 38400),
    'random-80000': Draw((225, 400), 80000),
    # RadOcc's default in a batch of four
    'batch-of-4-80000': Draw((225, 400), 80000, 4),
}
# p(occupied) in free space.
SCENES = {'foggy': 0.01, 'sharp': 0.0002}
KINDS = {'train': 'forward + backward', 'test': 'no grad', 'step': 'whole step', 'light': 'light'}


def main(argv=None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    results, tables = [], []
    for name in args.rays:
        for scene in args.scenes:
            result = Bench(name, scene, device).measure(args)
            results.append(result)
            tables.append(format_table(result))
            print('\n' + tables[-1], flush=True)
            if args.json:
                write_atomically(args.json, json.dumps(results, indent=1) + '\n')
    if args.out:
        args.out.write_text('\n\n'.join(tables) + '\n')


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('--rays', nargs='+', choices=RAYS, default=list(RAYS)[1:4])
    parser.add_argument('--scenes', nargs='+', choices=SCENES, default=list(SCENES))
    parser.add_argument('--reps', type=int, default=5)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--only', nargs='+', help='variants whose name has one of these words')
    parser.add_argument('--out', type=Path, help='Markdown file')
    parser.add_argument('--json', type=Path, help='JSON file')
    return parser.parse_args(argv)


class Author:
    """Author-style renderer; like the original it finds its samples anew in
    each render."""

    light = None

    def __init__(self, geometry: RenderGeometry) -> None:
        self.geometry = geometry

    def __call__(self, logits: Tensor):
        return render_like_author(-logits[:, -1], logits[:, :-1], self.geometry)

    def step(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Teacher, student and the KL of their weights."""
        with torch.no_grad():
            target = self(teacher)
        own = self(student)
        p, q = (
            torch.cat((x.weights, x.no_hit[:, None]), dim=1).clamp_min(1e-8) for x in (target, own)
        )
        return objective(own) + (p * (p / q).log()).sum(1).mean()


class Ours:
    """One backend of the exact renderer."""

    def __init__(self, geometry: RenderGeometry, backend: str, **kwargs) -> None:
        self.geometry = geometry
        self.options = dict(backend=backend, **kwargs)

    def __call__(self, logits: Tensor):
        return render_logits(logits, self.geometry, **self.options)[1:]

    def step(self, teacher: Tensor, student: Tensor) -> Tensor:
        _, own, kl = render_logits_pair(teacher, student, self.geometry, **self.options)
        return objective(own[1:]) + kl.mean()

    def light(self, teacher: Tensor) -> None:
        """The teacher's walk of the voxel-weighted distillation."""
        voxel_light_of_logits(teacher, self.geometry, **self.options)


class Walked(Ours):
    """The same for rays that are new in each step."""

    def __getattribute__(self, name):
        value = super().__getattribute__(name)
        # has not walked yet
        return replace(value) if name == 'geometry' else value


def objective(render) -> Tensor:
    """Any scalar that needs every output."""
    depth, semantics, no_hit = render[:3]
    return depth.mean() + semantics.square().mean() + no_hit.mean()


class Bench:
    """One set of rays in one scene."""

    def __init__(self, rays: str, scene: str, device: torch.device) -> None:
        self.name = f'{rays}, {scene}'
        self.device = device
        self.draw = RAYS[rays]
        self.cameras = make_cameras(self.draw.batch, device)
        self.generator = torch.Generator().manual_seed(0)
        self.geometry = self.trace()
        self.logits, self.teacher = (
            make_logits(SCENES[scene], seed).repeat(self.draw.batch, 1).to(device)
            for seed in (0, 1)
        )

    def trace(self) -> RenderGeometry:
        rays = draw_rays(
            self.cameras, self.draw.size, max_rays=self.draw.cap, generator=self.generator
        )
        return RenderGeometry(rays, GRID, self.draw.batch)

    def variants(self) -> Dict[str, object]:
        geometry = self.geometry
        compiled = 'cpp' if self.device.type == 'cpu' else 'triton'
        softplus = dict(density='softplus')
        ours = {
            'torch': Ours(geometry, 'torch', **softplus),
            'torch, walk included': Walked(geometry, 'torch', **softplus),
            compiled: Ours(geometry, compiled, **softplus),
            f'{compiled}, every crossing': Ours(
                geometry, compiled, min_transmittance=0.0, **softplus
            ),
            f'{compiled}, density -log p(free)': Ours(geometry, compiled),
        }
        if self.draw.batch > 1:
            return ours
        return {'author style (287 samples)': Author(geometry), **ours}

    def measure(self, args: argparse.Namespace) -> dict:
        variants = {
            k: v
            for k, v in self.variants().items()
            if args.only is None or k.startswith('author') or any(w in k for w in args.only)
        }
        crossings = len(self.geometry.crossings.voxel)  # walks, once
        jobs = [
            (name, kind)
            for name, v in variants.items()
            for kind in KINDS
            if kind != 'light' or v.light
        ]
        seconds = {job: [] for job in jobs}
        memory = {}
        for name, kind in jobs:
            self.run(variants[name], kind)  # what is made once
            memory[name, kind] = peak_memory(lambda: self.run(variants[name], kind), self.device)
        for _, (name, kind) in track_iter_progress(
            [(r, job) for r in range(args.reps) for job in jobs], file=sys.stderr
        ):
            begin = clock(self.device)
            self.run(variants[name], kind)
            seconds[name, kind].append(clock(self.device) - begin)
        gradient = self.logits.numel() * 4 / 2**20
        rows = {
            name: dict(
                depth_error=self.error(variant),
                **{
                    kind: dict(
                        ms=1e3 * statistics.median(seconds[name, kind]),
                        least_ms=1e3 * min(seconds[name, kind]),
                        extra_mb=memory[name, kind]
                        - (gradient if kind in ('train', 'step') else 0),
                    )
                    for kind in KINDS
                    if (name, kind) in seconds
                },
            )
            for name, variant in variants.items()
        }
        result = dict(
            name=self.name,
            device=device_name(self.device, args.threads),
            reps=args.reps,
            rays=len(self.geometry.rays),
            crossings=crossings,
            logits_mb=gradient,
            rows=rows,
        )
        if self.device.type == 'cuda':
            result.update(self.on_cuda(variants))
        return result

    def on_cuda(self, variants) -> dict:
        """What a step asks of the GPU besides arithmetic, the draw of the
        rays included: kernels and host waits; and the bandwidth of a copy."""
        cost = {}
        for name, variant in variants.items():
            if not isinstance(variant, Author):
                fresh = type(variant)(self.trace(), **variant.options)
                cost[name] = {
                    kind: launches(lambda: self.run(fresh, kind)) for kind in ('step', 'light')
                }
        cost['draw'] = dict(step=launches(self.trace))
        source = torch.empty(2**28, device=self.device)
        target = torch.empty_like(source)
        times = []
        for _ in range(6):
            begin = clock(self.device)
            target.copy_(source)
            times.append(clock(self.device) - begin)
        return dict(launches=cost, copy_gb_s=2 * source.numel() * 4 / min(times) / 1e9)

    def run(self, variant, kind: str) -> None:
        if kind in ('test', 'light'):
            with torch.no_grad():
                (variant if kind == 'test' else variant.light)(self.logits)
            return
        student = self.logits.requires_grad_()
        loss = (
            variant.step(self.teacher, student) if kind == 'step' else objective(variant(student))
        )
        loss.backward()
        student.grad = None
        student.requires_grad_(False)

    def error(self, variant) -> float:
        """Largest depth difference from the same function in float64."""
        double = variant
        if isinstance(variant, Ours):
            options = dict(variant.options, backend='reference')
            double = Ours(self.geometry, **options)
        with torch.no_grad():
            exact = double(self.logits.double())[0]
            return float((variant(self.logits)[0] - exact).abs().max())


def launches(run: Callable[[], None]) -> dict:
    """Kernels that a call starts and the times that it waits for the GPU."""
    from torch.profiler import ProfilerActivity, profile

    run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    kernels = sum(event.count for event in profiler.key_averages() if 'LaunchKernel' in event.key)
    torch.cuda.set_sync_debug_mode('warn')
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter('always')
            run()
    finally:
        torch.cuda.set_sync_debug_mode('default')
    return dict(kernels=kernels, waits=sum('synchroniz' in str(wait.message) for wait in waits))


def format_table(result: dict) -> str:
    """Markdown of one result."""
    lines = [
        f'### {result["name"]}: {result["rays"]:,} rays, {result["crossings"]:,} crossings',
        f'{result["device"]}, {result["reps"]} repetitions in turns, median '
        '(minimum) ms. Memory is the peak beyond leaf and gradient '
        f'({result["logits_mb"]:.0f} MB).',
        '',
    ]
    columns = ['variant']
    for title in KINDS.values():
        columns += [title, 'faster']
    columns += ['extra MB', 'less', 'step MB', 'depth error m']
    if 'launches' in result:
        columns += ['Mrays/s', 'Gcrossings/s', 'bandwidth', 'kernels', 'waits']
    lines += ['| ' + ' | '.join(columns) + ' |', '|---' * len(columns) + '|']
    base = next(iter(result['rows'].values()))

    def ratio(part, kind, field) -> str:
        if kind not in base:
            return '-'
        return f'{base[kind][field] / max(part[kind][field], 0.1):.1f}'

    for name, row in result['rows'].items():
        cells: List[str] = [name]
        for kind in KINDS:
            if kind in row:
                cells += [
                    f'{row[kind]["ms"]:.3g} ({row[kind]["least_ms"]:.3g})',
                    ratio(row, kind, 'ms'),
                ]
            else:
                cells += ['-', '-']
        cells += [
            f'{row["train"]["extra_mb"]:.0f}',
            ratio(row, 'train', 'extra_mb'),
            f'{row["step"]["extra_mb"]:.0f}',
            f'{row["depth_error"]:.1e}',
        ]
        if 'launches' in result:
            seconds = row['step']['ms'] / 1e3
            # two volumes read, a gradient written
            moved = 3 * result['logits_mb'] * 2**20 / 1e9
            count = result['launches'].get(name, {}).get('step', {})
            cells += [
                f'{result["rays"] / seconds / 1e6:.1f}',
                f'{result["crossings"] / seconds / 1e9:.2f}',
                f'{moved / seconds / result["copy_gb_s"]:.0%}',
                str(count.get('kernels', '-')),
                str(count.get('waits', '-')),
            ]
        lines.append('| ' + ' | '.join(cells) + ' |')
    if 'launches' in result:
        draw = result['launches']['draw']['step']
        lines += [
            '',
            f'Drawing the rays: {draw["kernels"]} kernels, '
            f'{draw["waits"]} waits; a copy moves '
            f'{result["copy_gb_s"]:,.0f} GB/s.',
        ]
    return '\n'.join(lines)


def make_cameras(batch: int, device: torch.device) -> Cameras:
    rig = make_rig(np.random.default_rng(0), (1600, 900))
    matrices = (
        torch.as_tensor(
            np.stack([getattr(c, name) for c in rig.cameras.values()]),
            dtype=torch.float32,
            device=device,
        ).repeat(batch, 1, 1, 1)
        for name in ('cam2img', 'cam2ego')
    )
    return Cameras(*matrices, torch.eye(4, device=device).repeat(batch, 1, 1), (900, 1600))


def make_logits(fog: float, seed: int) -> Tensor:
    """Ground, boxes, poles and walls as logits (V, 18)."""
    rng = np.random.default_rng(7)
    labels = np.full(GRID.shape, occ3d.FREE)
    labels[:, :, :3] = 11
    for _ in range(120):
        x, y = rng.integers(0, 200, 2)
        if max(abs(x - 100), abs(y - 100)) < 12:
            continue
        sx, sy = rng.integers(1, 14, 2)
        top = int(rng.integers(5, 16))
        labels[x : x + sx, y : y + sy, 3:top] = rng.integers(0, 17)
    noise = np.random.default_rng(seed)
    logits = noise.normal(0, 0.3, (*GRID.shape, NUM_CLASSES))
    logits[..., :-1] -= np.log(NUM_CLASSES - 1)
    free = labels == occ3d.FREE
    logits[..., -1] += np.where(free, np.log(1 / fog - 1), -3)
    np.put_along_axis(
        logits,
        labels[..., None],
        np.take_along_axis(logits, labels[..., None], -1) + ~free[..., None] * 4.0,
        -1,
    )
    return torch.as_tensor(logits, dtype=torch.float32).flatten(0, 2)


def device_name(device: torch.device, threads: int) -> str:
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'CPU, {threads} thread(s)'


def clock(device: torch.device) -> float:
    if device.type == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory(run: Callable[[], None], device: torch.device) -> float:
    """Largest memory during a call beyond that before it, MB."""
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL('libc.so.6').malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')  # resets the peak
    before = resident('VmRSS')
    run()
    return resident('VmHWM') - before


def resident(field: str) -> float:
    status = Path('/proc/self/status').read_text()
    line = next(x for x in status.splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024
