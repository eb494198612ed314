"""Makes a segment map for every camera image of the given info files.

    python tools/generate_segments.py --data-root data/nuscenes \\
        --ann-file data/nuscenes/radocc_infos_train.pkl \\
        --out data/nuscenes/segments

Finished images are skipped, so an interrupted run goes on where it stopped.
A folder holds maps of one setting (see its manifest.json).
"""
import argparse
import dataclasses
import os
import time
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import cv2
import numpy as np
from rich.progress import (BarColumn, MofNCompleteColumn, Progress,
                           TextColumn, TimeElapsedColumn, TimeRemainingColumn)

from radocc_plugin.datasets.info_file import load_infos
from radocc_plugin.segments import (SEGMENTERS, ensure_manifest, segment_path,
                                    write_label_map)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n')[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        '--ann-file', nargs='+', required=True, help='info pickles')
    parser.add_argument(
        '--data-root', required=True, help='folder the image paths start in')
    parser.add_argument('--out', required=True, help='folder of the maps')
    parser.add_argument(
        '--method', choices=sorted(SEGMENTERS), default='felzenszwalb')
    parser.add_argument(
        '--setting',
        nargs='*',
        default=[],
        metavar='NAME=VALUE',
        help='changes a setting of the method, e.g. width=800 scale=300')
    parser.add_argument('--workers', type=int, default=os.cpu_count())
    return parser.parse_args(argv)


def build_segmenter(method: str, assignments):
    """A segmenter from ``name=value`` texts."""
    cls = SEGMENTERS[method]
    types = {f.name: f.type for f in dataclasses.fields(cls)}
    settings = {}
    for assignment in assignments:
        name, _, value = assignment.partition('=')
        if name not in types:
            raise ValueError(f'--setting {assignment}: {method} takes '
                             f'{", ".join(types)}')
        try:
            settings[name] = types[name](value)
        except ValueError as error:
            raise ValueError(
                f'--setting {assignment}: {name} takes a number of type '
                f'{types[name].__name__}') from error
    return cls(**settings)


def image_paths(ann_files):
    """Every camera image of the info files once, sorted."""
    paths = set()
    for ann_file in ann_files:
        for info in load_infos(ann_file)['data_list']:
            paths.update(cam['img_path'] for cam in info['images'].values())
    return sorted(paths)


def segment_image(img_path, segmenter, data_root, out):
    """Writes the map of one image; returns its count and its file size."""
    source = Path(data_root) / img_path
    data = source.read_bytes() if source.is_file() else b''
    image = cv2.imdecode(np.frombuffer(data, np.uint8),
                         cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise ValueError(f'{source}: image is missing or unreadable')
    labels = segmenter(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    target = segment_path(out, img_path)
    write_label_map(target, labels)
    return int(len(np.unique(labels[labels > 0]))), target.stat().st_size


def main(argv=None):
    args = parse_args(argv)
    segmenter = build_segmenter(args.method, args.setting)
    paths = image_paths(args.ann_file)
    ensure_manifest(args.out, segmenter.settings)
    todo = [p for p in paths if not segment_path(args.out, p).exists()]
    print(f'{len(paths)} images, {len(paths) - len(todo)} already done; '
          f'settings {segmenter.settings}')
    if not todo:
        return

    work = partial(
        segment_image,
        segmenter=segmenter,
        data_root=args.data_root,
        out=args.out)
    columns = (TextColumn('segments'), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn(), TextColumn('left'), TimeRemainingColumn())
    start = time.time()
    # one thread each: the workers already fill the cores
    with Pool(max(1, args.workers), cv2.setNumThreads,
              (1, )) as pool, Progress(*columns) as progress:
        results = list(
            progress.track(
                pool.imap_unordered(work, todo, chunksize=4),
                total=len(todo)))
    counts, sizes = zip(*results)
    print(f'{len(todo)} maps in {time.time() - start:.0f} s: '
          f'{np.mean(counts):.0f} segments an image '
          f'({min(counts)}..{max(counts)}), {np.mean(sizes) / 1024:.0f} KiB '
          f'a map, in {args.out}')


if __name__ == '__main__':
    main()
