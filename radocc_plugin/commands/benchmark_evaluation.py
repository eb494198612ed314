"""Times our metrics against the published per-frame loops.

    python tools/benchmark.py evaluation [--data-root data/synthetic]

Both run in this process on one thread, in turns, on the same volumes; what is
compared is the median ratio of a turn in processor time. The loops are
written from their formulas: mIoU as in Occ3D's and BEVDet's ``Metric_mIoU``,
RayIoU as the walk of ``dvr.render_forward``, whose published form is a CUDA
kernel. The published evaluation is a pass of its own over all frames, which
reads each ``labels.npz`` again; ours counts labels that the data loader has
already read, so mIoU is compared with that pass and with its counting alone.
"""

import argparse
import math
import platform
import tempfile
import time
from pathlib import Path


import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from radocc_plugin import occ3d
from radocc_plugin.evaluation import confusion_matrix, count_rays, lidar_directions
from radocc_plugin.geometry import VoxelGrid

GRID = VoxelGrid(occ3d.POINT_CLOUD_RANGE, occ3d.GRID_SHAPE)


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data-root', help='takes frames of its gts/ instead of made-up ones')
    parser.add_argument('--frames', type=int, default=4)
    parser.add_argument('--repetitions', type=int, default=15)
    parser.add_argument('--origins', type=int, default=8)
    parser.add_argument(
        '--rays', type=int, default=200, help='rays of the plain walk, whose time is scaled to all'
    )
    return parser.parse_args(argv)


def load_frames(root: str, count: int) -> list:
    """Labels and camera masks of Occ3D files."""
    paths = sorted(Path(root).glob('gts/*/*/labels.npz'))
    if not paths:
        raise ValueError(f'--data-root {root} has no gts/*/*/labels.npz')
    frames = []
    for path in paths[:: max(1, len(paths) // count)][:count]:
        with np.load(path) as file:
            frames.append((file['semantics'], file['mask_camera']))
    return frames


def make_frames(count: int) -> list:
    """Ground, buildings and boxes; seen is what lies in six view cones."""
    frames = []
    x, y, z = np.meshgrid(*map(np.arange, occ3d.GRID_SHAPE), indexing='ij')
    for seed in range(count):
        rng = np.random.default_rng(seed)
        labels = np.full(occ3d.GRID_SHAPE, occ3d.FREE, np.uint8)
        labels[:, :, 2] = 11
        labels[:, np.abs(y[0, :, 0] - 100) > 25, 2:4] = 14
        labels[:, 170:172, 2:14] = labels[:, 28:30, 2:14] = 15
        for _ in range(40):
            a, b = rng.integers(0, 190, 2)
            size = rng.integers(2, 10, 2)
            if abs(a - 97) > 12 or abs(b - 97) > 12:  # not around the sensor
                labels[a : a + size[0], b : b + size[1], 2 : 2 + rng.integers(3, 8)] = rng.integers(
                    0, 17
                )
        bearing = np.arctan2(y - 99.5, x - 99.5) + rng.uniform(0, 1)
        radius = np.hypot(x - 99.5, y - 99.5)
        reach = 50 + 35 * np.sin(5 * bearing)
        seen = (radius < reach) & (z < 4 + 0.15 * radius)
        frames.append((labels, seen.astype(np.uint8)))
    return frames


def published_histogram(prediction, target, mask_camera) -> np.ndarray:
    """What ``Metric_mIoU`` does with one frame and the camera mask."""
    mask = mask_camera.astype(bool)
    prediction, target = prediction[mask].flatten(), target[mask].flatten()
    classes = occ3d.NUM_CLASSES
    valid = (target >= 0) & (target < classes)
    np.sum(valid), np.sum(prediction[valid] == target[valid])
    return np.bincount(
        classes * target[valid].astype(int) + prediction[valid].astype(int), minlength=classes**2
    ).reshape(classes, classes)


def published_walk(labels, origin, direction) -> tuple:
    """Class and exit distance of one ray, voxel units."""
    voxel = [int(o) for o in origin]
    step = [1 if d >= 0 else -1 for d in direction]
    t_max = [
        (v + (s > 0) - o) / d if d else math.inf
        for v, s, o, d in zip(voxel, step, origin, direction)
    ]
    t_delta = [s / d if d else math.inf for s, d in zip(step, direction)]
    last = None
    while True:
        inside = all(0 <= v < n for v, n in zip(voxel, labels.shape))
        if not inside and last is not None:
            return last
        x, y, z = t_max
        axis = 0 if x < y and x < z else 1 if y < z else 2
        if inside:
            last = labels[voxel[0], voxel[1], voxel[2]], t_max[axis]
            if last[0] < occ3d.FREE:
                return last
        voxel[axis] += step[axis]
        t_max[axis] += t_delta[axis]


def seconds(function) -> float:
    """Processor time, which other processes on the machine do not stretch."""
    start = time.process_time()
    function()
    return time.process_time() - start


def published_pass(path, prediction) -> np.ndarray:
    """One frame of the published evaluation loop."""
    with np.load(path) as labels:
        target = labels['semantics']
        labels['mask_lidar'].astype(bool)
        return published_histogram(prediction, target, labels['mask_camera'])


def compare_miou(frames, folder, repetitions) -> tuple:
    """Milliseconds a frame of ours, the counting and the pass, and the median
    ratios of the two to ours."""
    paths = []
    for number, (truth, _, mask) in enumerate(frames):
        paths.append(Path(folder) / f'{number}.npz')
        np.savez_compressed(paths[-1], semantics=truth, mask_lidar=mask, mask_camera=mask)
    loaded = [
        tuple(map(torch.from_numpy, (truth, predicted, mask.astype(bool))))
        for truth, predicted, mask in frames
    ]

    def ours():
        return [confusion_matrix(*frame, num_classes=occ3d.NUM_CLASSES) for frame in loaded]

    def counting():
        return [published_histogram(predicted, truth, mask) for truth, predicted, mask in frames]

    def whole_pass():
        return [published_pass(path, predicted) for path, (_, predicted, _) in zip(paths, frames)]

    for mine, *published in zip(ours(), counting(), whole_pass()):
        assert all((mine.numpy() == other).all() for other in published)
    times = np.array(
        [(seconds(ours), seconds(counting), seconds(whole_pass)) for _ in range(repetitions)]
    )
    milliseconds = 1000 * np.median(times, 0) / len(frames)
    return *milliseconds, *np.median(times[:, 1:] / times[:, :1], 0)


def compare_rays(frame, origins, num_rays, repetitions) -> tuple:
    """Seconds a frame of both and the median ratio."""
    truth, predicted, _ = frame
    volumes = [torch.from_numpy(v) for v in (predicted, truth)]
    directions = lidar_directions()
    last = len(directions) - 1
    chosen = directions[torch.linspace(0, last, num_rays).long()]
    start = [(o - m) / occ3d.VOXEL_SIZE for o, m in zip(origins[0].tolist(), GRID.minimum)]

    def theirs():
        for volume in (truth, predicted):
            for direction in chosen.tolist():
                published_walk(volume, start, direction)

    scale = len(origins) * len(directions) / num_rays
    times = np.array(
        [
            (
                seconds(lambda: count_rays(*volumes, origins, GRID, free=occ3d.FREE)),
                scale * seconds(theirs),
            )
            for _ in range(repetitions)
        ]
    )
    mine, published = np.median(times, 0)
    return mine, published, np.median(times[:, 1] / times[:, 0])


def main(argv=None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(1)
    frames = (
        load_frames(args.data_root, args.frames) if args.data_root else make_frames(args.frames)
    )
    # a prediction that is off by a voxel
    frames = [(truth, np.roll(truth, 1, 0), np.ascontiguousarray(mask)) for truth, mask in frames]
    share = np.mean([mask.mean() for *_, mask in frames])
    occupied = np.mean([(truth != occ3d.FREE).mean() for truth, *_ in frames])
    origins = torch.zeros(args.origins, 3)
    origins[:, 0] = torch.linspace(-35, 35, args.origins)
    origins[:, 2] = 1.84

    table = Table('metric')
    for header in ('ours', 'published loop', 'ratio'):
        table.add_column(header, justify='right')
    with tempfile.TemporaryDirectory() as folder:
        mine, count, whole, *ratios = compare_miou(frames, folder, args.repetitions)
    for name, published, ratio in (
        ('whole pass', whole, ratios[1]),
        ('counting alone', count, ratios[0]),
    ):
        table.add_row(
            f'mIoU, ms a frame, {name}', f'{mine:.2f}', f'{published:.2f}', f'{ratio:.1f}'
        )
    mine, published, ratio = compare_rays(frames[0], origins, args.rays, 5)
    table.add_row(
        f'RayIoU, s a frame, {args.origins} origins',
        f'{mine:.2f}',
        f'{published:.0f} (scaled)',
        f'{ratio:.0f}',
    )
    console = Console()
    console.print(table)
    console.print(
        f'{len(frames)} frames, {100 * share:.0f} % of the voxels seen, '
        f'{100 * occupied:.1f} % occupied; one thread, {args.repetitions} '
        f'turns (RayIoU 5); torch {torch.__version__}, numpy '
        f'{np.__version__}, {platform.machine()}',
        highlight=False,
    )
