"""Looks at a folder of segment maps: statistics, and a picture an image.

    python tools/visualize.py segments --segments data/nuscenes/segments \\
        --data-root data/nuscenes \\
        --ann-file data/nuscenes/radocc_infos_train.pkl \\
        --out work_dirs/segments

Prints how the maps were made and a table of each camera; writes
statistics.csv with a line for each map and, for --pictures of the images,
the image beside its segments.
"""

import argparse
import csv
import io
from pathlib import Path


import cv2
import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table

from radocc_plugin.fileio import read_image, write_atomically
from radocc_plugin.segments import (
    is_complete,
    map_statistics,
    overlay,
    read_label_map,
    read_manifest,
    segment_path,
)
from radocc_plugin.segments.camera_images import image_paths


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--segments', required=True, help='folder of the maps')
    parser.add_argument('--data-root', required=True, help='folder the image paths start in')
    parser.add_argument('--ann-file', nargs='+', required=True, help='info pickles')
    parser.add_argument('--out', required=True)
    parser.add_argument(
        '--pictures',
        type=int,
        default=24,
        help='draw so many, evenly over the images; -1 draws all',
    )
    return parser.parse_args(argv)


def statistics(paths: dict, segments_root: str) -> list:
    """A row for each image; only the first three fields without a map."""
    rows = []
    for path, camera in track(paths.items(), 'Reading maps'):
        target = segment_path(segments_root, path)
        row = dict(camera=camera, img_path=path, complete=is_complete(target))
        if row['complete']:
            labels = read_label_map(target)
            row.update(
                map_statistics(labels),
                height=labels.shape[0],
                width=labels.shape[1],
                bytes=target.stat().st_size,
            )
        rows.append(row)
    return rows


def summary(rows: list) -> Table:
    """The table of the cameras."""
    table = Table(
        box=SIMPLE, padding=0, caption='covered: pixels with a segment; median: area of a segment'
    )
    for name in (
        'camera',
        'images',
        'missing',
        'segments',
        'min',
        'max',
        'covered',
        'median',
        'KiB',
    ):
        table.add_column(name, justify='left' if name == 'camera' else 'right', no_wrap=True)
    cameras = sorted({row['camera'] for row in rows})
    for camera in [*cameras, 'all']:
        mine = [r for r in rows if camera in (r['camera'], 'all')]
        made = [r for r in mine if r['complete']]
        cells = [str(len(mine)), str(len(mine) - len(made))]
        if made:
            mean = {
                name: np.mean([r[name] for r in made])
                for name in ('count', 'covered', 'median', 'bytes')
            }
            counts = [r['count'] for r in made]
            cells += [
                f'{mean["count"]:.0f}',
                str(min(counts)),
                str(max(counts)),
                f'{mean["covered"]:.1%}',
                f'{mean["median"]:.2%}',
                f'{mean["bytes"] / 1024:.0f}',
            ]
        if camera == 'all':
            table.add_section()
        table.add_row(camera, *cells)
    return table


def draw(image: np.ndarray, labels: np.ndarray) -> bytes:
    """PNG of an image, at its map's width or 800, beside its overlay."""
    width = max(labels.shape[1], 800)
    size = (width, round(image.shape[0] * width / image.shape[1]))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    both = np.concatenate([image, overlay(image, labels)], axis=1)
    return cv2.imencode('.png', both[..., ::-1])[1].tobytes()


def main(argv=None) -> None:
    args = parse_args(argv)
    paths = image_paths(args.ann_file)
    manifest = read_manifest(args.segments)
    console = Console()
    console.print(
        f'{args.segments}: hash {manifest["hash"]}, {manifest["settings"]}',
        highlight=False,
        markup=False,
    )
    rows = statistics(paths, args.segments)
    console.print(summary(rows))

    out = Path(args.out)
    fields = max(rows, key=len).keys()
    text = io.StringIO()
    writer = csv.DictWriter(text, fields)
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(out / 'statistics.csv', text.getvalue())

    made = [row['img_path'] for row in rows if row['complete']]
    if 0 <= args.pictures < len(made):
        chosen = np.linspace(0, len(made) - 1, args.pictures).round()
        made = [made[int(index)] for index in chosen]
    for path in track(made, 'Drawing'):
        picture = draw(
            np.asarray(read_image(Path(args.data_root) / path)),
            read_label_map(segment_path(args.segments, path)),
        )
        write_atomically((out / path).with_suffix('.png'), picture)
    console.print(f'{len(made)} pictures and statistics.csv in {out}', highlight=False)
