"""Times the renderer's backends against an author-style renderer.

    python tools/benchmark_rendering.py                 # everything
    python tools/benchmark_rendering.py --rays 6x28x50 --scenes foggy

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
import os
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Callable, Dict, List

# Large pages for large tensors, of every variant: see docs/rendering.md.
os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.utils import track_iter_progress
from torch import Tensor

# The folder above holds the package, in a clone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from radocc_plugin import occ3d
from radocc_plugin.geometry import Cameras, VoxelGrid, draw_rays
from radocc_plugin.rendering import (
    RenderGeometry,
    Sampling,
    render_logits,
    render_logits_pair,
    render_samples,
)
from radocc_plugin.synthetic.sensors import make_rig

GRID = VoxelGrid(occ3d.POINT_CLOUD_RANGE, occ3d.GRID_SHAPE)
NUM_CLASSES = len(occ3d.CLASSES)
NUM_SAMPLES, STEP = 287, 0.2
# Name: render size and cap of the rays.
RAYS = {
    '6x28x50': ((28, 50), None),
    '6x56x100': ((56, 100), None),
    'random 38,400': ((900, 1600), 38400)
}
# p(occupied) in free space.
SCENES = {'foggy': 0.01, 'sharp': 0.0002}


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    tables = []
    for name in args.rays:
        for scene in args.scenes:
            bench = Bench(name, scene, device, args.slow)
            tables.append(bench.table(args))
            print('\n' + tables[-1], flush=True)
    if args.out:
        args.out.write_text('\n\n'.join(tables) + '\n')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--rays', nargs='+', choices=RAYS, default=list(RAYS))
    parser.add_argument(
        '--scenes', nargs='+', choices=SCENES, default=list(SCENES))
    parser.add_argument('--reps', type=int, default=5)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--device', default='cpu')
    parser.add_argument(
        '--only', nargs='+', help='variants whose name has one of these words')
    parser.add_argument(
        '--slow', action='store_true', help='the sampled mode without C++ too')
    parser.add_argument('--out', type=Path, help='Markdown file')
    return parser.parse_args()


class Author:
    """Author-style renderer, from the formulas, under plain autograd.

    Like the original it finds its samples anew in each render.
    """

    def __init__(self, geometry: RenderGeometry) -> None:
        self.rays = geometry.rays

    def samples(self):
        """Ray parameters (S,), which samples are inside, (R, S), and where
        those are for grid_sample, (M, 3)."""
        rays = self.rays
        t = torch.arange(NUM_SAMPLES, device=rays.origins.device) * STEP
        points = rays.origins[:, None] + rays.directions[:, None] * t[:, None]
        low, high = (rays.origins.new_tensor(x)
                     for x in (GRID.minimum, GRID.maximum))
        inside = ((points >= low) & (points <= high)).all(-1)
        # grid_sample wants (z, y, x) for a volume of (X, Y, Z).
        where = (2 * (points[inside] - low) / (high - low) - 1).flip(-1)
        return t, inside, where

    def __call__(self, logits: Tensor):
        t, inside, where = self.samples()

        def sample(volume: Tensor) -> Tensor:
            """(C, X, Y, Z) -> dense (R, S, C), 0 outside the grid."""
            values = F.grid_sample(
                volume[None], where[None, None, None],
                align_corners=True)[0, :, 0, 0]
            dense = values.new_zeros(*inside.shape, len(volume))
            dense[inside] = values.t()
            return dense

        volume = logits.view(*GRID.shape, NUM_CLASSES).permute(3, 0, 1, 2)
        density = F.softplus(sample(-volume[-1:])[..., 0]) * inside
        alpha = 1 - torch.exp(-density * STEP)
        left = torch.cumprod((1 - alpha).clamp_min(1e-10), dim=1)
        left = torch.cat((torch.ones_like(left[:, :1]), left), dim=1)
        weights = alpha * left[:, :-1]
        semantics = (weights[..., None] * sample(volume[:-1])).sum(1)
        return (weights * t).sum(1), semantics, left[:, -1], weights

    def step(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Teacher, student and the KL of their weights."""
        with torch.no_grad():
            target = self(teacher)
        own = self(student)
        p, q = (
            torch.cat((x[3], x[2][:, None]), dim=1).clamp_min(1e-8)
            for x in (target, own))
        kl = (p * (p / q).log()).sum(1)
        return objective(own) + objective(target) + kl.mean()


class Ours:
    """One backend of the exact renderer."""

    def __init__(self, geometry: RenderGeometry, backend: str,
                 **kwargs) -> None:
        self.geometry = geometry
        self.options = dict(backend=backend)
        if 'min_transmittance' in kwargs:
            self.options['min_transmittance'] = kwargs.pop('min_transmittance')
        self.density = kwargs

    def __call__(self, logits: Tensor):
        density, *render = render_logits(
            logits, self.geometry, **self.options, **self.density)
        return (*render, density)

    def step(self, teacher: Tensor, student: Tensor) -> Tensor:
        target, own, kl = render_logits_pair(
            teacher, student, self.geometry, **self.options, **self.density)
        return objective(own[1:]) + objective(target[1:]) + kl.mean()


class Walked(Ours):
    """The same for rays that are new in each step."""

    def __call__(self, logits: Tensor):
        geometry = self.geometry
        self.geometry = replace(geometry)  # has not walked yet
        render = super().__call__(logits)
        self.geometry = geometry
        return render

    step = None


class Sampled:
    """The author's function by our sampled mode."""

    def __init__(self, geometry: RenderGeometry, backend: str,
                 min_transmittance: float = 0.) -> None:
        self.geometry = geometry
        self.options = dict(
            backend=backend, min_transmittance=min_transmittance)

    def __call__(self, logits: Tensor):
        return render_samples(-logits[:, -1], logits, self.geometry,
                              Sampling.of_author(GRID), **self.options)


def objective(render) -> Tensor:
    """Any scalar that needs every output."""
    depth, semantics, no_hit = render[:3]
    return (depth.mean() + semantics[:, :17].square().mean() + no_hit.mean())


class Bench:
    """One set of rays in one scene."""

    def __init__(self, rays: str, scene: str, device: torch.device,
                 slow: bool = False) -> None:
        self.slow = slow
        self.name = f'{rays} rays, {scene}'
        size, cap = RAYS[rays]
        rig = make_rig(np.random.default_rng(0), (1600, 900))
        cameras = Cameras(
            *(torch.as_tensor(
                np.stack([getattr(c, name) for c in rig.cameras.values()]),
                dtype=torch.float32,
                device=device)[None] for name in ('cam2img', 'cam2ego')),
            torch.eye(4, device=device)[None], (900, 1600))
        generator = torch.Generator().manual_seed(0)
        self.geometry = RenderGeometry(
            draw_rays(cameras, size, max_rays=cap, generator=generator), GRID,
            1)
        self.logits = make_logits(SCENES[scene], 0).to(device)
        self.teacher = make_logits(SCENES[scene], 1).to(device)

    def variants(self) -> Dict[str, object]:
        geometry = self.geometry
        author = Author(geometry)
        softplus = dict(density='softplus')
        ours = {
            'author style (287 samples)': author,
            'torch': Ours(geometry, 'torch', **softplus),
            'torch, walk included': Walked(geometry, 'torch', **softplus),
        }
        if geometry.rays.origins.is_cuda:
            ours['triton'] = Ours(geometry, 'triton', **softplus)
            ours['triton, density -log p(free)'] = Ours(geometry, 'triton')
        else:
            ours['cpp'] = Ours(geometry, 'cpp', **softplus)
            ours['cpp, every crossing'] = Ours(
                geometry, 'cpp', min_transmittance=0., **softplus)
            ours['cpp, density -log p(free)'] = Ours(geometry, 'cpp')
            ours['sampled cpp, every sample'] = Sampled(geometry, 'cpp')
            ours['sampled cpp'] = Sampled(geometry, 'cpp', 1e-4)
        if geometry.rays.origins.is_cuda or self.slow:
            ours['sampled torch'] = Sampled(geometry, 'torch')
        return ours

    def table(self, args: argparse.Namespace) -> str:
        variants = {
            k: v
            for k, v in self.variants().items() if args.only is None
            or k.startswith('author') or any(w in k for w in args.only)
        }
        begin = clock(self.logits)
        self.geometry.segments  # built once: not part of the repetitions
        walk = clock(self.logits) - begin
        jobs = [(name, kind) for name, v in variants.items()
                for kind in ('train', 'test', 'step')
                if kind != 'step' or getattr(v, 'step', None)]
        seconds = {job: [] for job in jobs}
        memory = {}
        for job in jobs:
            if job[1] == 'train':  # what is made once is no step's memory
                self.run(variants[job[0]], 'train')
            memory[job] = peak_memory(
                lambda: self.run(variants[job[0]], job[1]), self.logits)
        for _, job in track_iter_progress(
            [(r, job) for r in range(args.reps) for job in jobs],
                file=sys.stderr):
            begin = clock(self.logits)
            self.run(variants[job[0]], job[1])
            seconds[job].append(clock(self.logits) - begin)
        return self.format(variants, seconds, memory, walk, args)

    def run(self, variant, kind: str) -> None:
        if kind == 'test':
            with torch.no_grad():
                variant(self.logits)
            return
        student = self.logits.requires_grad_()
        loss = (
            variant.step(self.teacher, student)
            if kind == 'step' else objective(variant(student)))
        loss.backward()
        student.grad = None
        student.requires_grad_(False)

    def kept(self) -> float:
        """What ``torch`` keeps of the rays, MB."""
        arrays = [*vars(self.geometry.segments).values()]
        for item in self.geometry.kept.values():
            arrays += item if isinstance(item, tuple) else [item]
        return sum(x.numel() * x.element_size() for x in arrays) / 2**20

    def error(self, variant) -> str:
        """Largest depth difference from the same function in float64."""
        with torch.no_grad():
            if isinstance(variant, Sampled):
                double = Sampled(self.geometry, 'torch')
            elif isinstance(variant, Ours):
                double = Ours(self.geometry, 'reference', **variant.density)
            else:
                double = Sampled(self.geometry, 'torch')
            exact = double(self.logits.double())[0]
            depth = variant(self.logits)[0]
        return f'{float((depth - exact).abs().max()):.1e}'

    def format(self, variants, seconds, memory, walk, args) -> str:
        gradient = self.logits.numel() * 4 / 2**20
        base = next(iter(variants))
        lines = [
            f'### {self.name}: {len(self.geometry.rays):,} rays, '
            f'{len(self.geometry.segments.voxel):,} crossings',
            f'{args.threads} thread(s) on {self.logits.device}, {args.reps} '
            'repetitions in turns, median (minimum) ms. Memory is the peak '
            f'beyond the leaf and its gradient ({gradient:.0f} MB). `torch` '
            f'keeps {self.kept():.0f} MB for the rig, in no row but "walk '
            f'included": a walk, made in {walk * 1e3:.0f} ms, and its pattern '
            'by voxel; the compiled backends walk on the fly.', '',
            '| variant | forward + backward | faster | no grad | faster | '
            'extra MB | less memory | whole step | faster | step MB | '
            'depth error m |', '|---|---|---|---|---|---|---|---|---|---|---|'
        ]

        def cells(name, kind) -> List[str]:
            if (name, kind) not in seconds:
                return ['-', '-']
            ms = [1e3 * s for s in seconds[name, kind]]
            first = statistics.median(seconds[base, kind])
            ratio = first / statistics.median(seconds[name, kind])
            return [
                f'{statistics.median(ms):.0f} ({min(ms):.0f})', f'{ratio:.1f}'
            ]

        for name, variant in variants.items():
            extra = memory[name, 'train'] - gradient
            less = (memory[base, 'train'] - gradient) / max(extra, 0.1)
            step = memory.get((name, 'step'))
            lines.append('| ' + ' | '.join([
                name, *cells(name, 'train'), *cells(name, 'test'),
                f'{extra:.0f}', f'{less:.0f}', *cells(name, 'step'),
                f'{step - gradient:.0f}' if step else '-',
                self.error(variant)
            ]) + ' |')
        return '\n'.join(lines)


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
        labels[x:x + sx, y:y + sy, 3:top] = rng.integers(0, 17)
    noise = np.random.default_rng(seed)
    logits = noise.normal(0, 0.3, (*GRID.shape, NUM_CLASSES))
    logits[..., :-1] -= np.log(NUM_CLASSES - 1)
    free = labels == occ3d.FREE
    logits[..., -1] += np.where(free, np.log(1 / fog - 1), -3)
    np.put_along_axis(
        logits, labels[..., None],
        np.take_along_axis(logits, labels[..., None], -1) + ~free[..., None] *
        4., -1)
    return torch.as_tensor(logits, dtype=torch.float32).flatten(0, 2)


def clock(like: Tensor) -> float:
    if like.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory(run: Callable[[], None], like: Tensor) -> float:
    """Largest memory during a call beyond that before it, MB."""
    gc.collect()
    if like.is_cuda:
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


if __name__ == '__main__':
    main()
