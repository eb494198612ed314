"""Draws what a pipeline feeds to a model.

    python tools/visualize.py samples CONFIG --out work_dirs/browse \\
        --number 10

One page a sample: augmented images, the LiDAR depth of the depth supervision
and segment borders on them, adjacent frames, and labels and points in the
augmented ego frame.
"""

import argparse
from pathlib import Path


import numpy as np
from mmengine.config import DictAction
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from rich.progress import track

from radocc_plugin.config_file import load_config
from radocc_plugin.registry import DATASETS
from radocc_plugin.visualization import save_picture
from radocc_plugin.visualization.pipeline_page import draw_pipeline_page


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file, from here or of the package')
    parser.add_argument('--out', type=Path, required=True, help='folder')
    parser.add_argument('--number', type=int, default=10, help='samples, evenly over the data')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train')
    parser.add_argument('--seed', type=int, default=0, help='of the augmentation')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings, e.g. train_dataloader.dataset.data_root=DIR',
    )
    args = parser.parse_args(argv)
    if args.number < 1:
        parser.error(f'--number takes a positive number, got {args.number}')
    return args


def main(argv=None) -> None:
    args = parse_args(argv)
    config = load_config(args.config, options=args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmengine'))
    set_random_seed(args.seed)
    dataset = DATASETS.build(config[f'{args.split}_dataloader'].dataset)
    number = min(args.number, len(dataset))
    indices = np.linspace(0, len(dataset) - 1, number).round().astype(int)
    for index in track(indices.tolist(), 'Drawing'):
        packed = dataset[index]
        sample = packed['data_samples']
        page = draw_pipeline_page(
            packed, title=f'{sample.scene_name} · {args.split} sample {index}'
        )
        save_picture(args.out / f'{index:05d}_{sample.token}.png', page)
    print(f'{number} pages: {args.out}')
