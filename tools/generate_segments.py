"""Makes a segment map for every camera image of the given info files.

    python tools/generate_segments.py [CONFIG] --data-root data/nuscenes \\
        --ann-file data/nuscenes/radocc_infos_train.pkl \\
        --out data/nuscenes/segments

CONFIG is a file or a name of configs/segments/; the default needs no weights.
Finished images are skipped, so an interrupted run goes on where it stopped.
A folder holds maps of one setting (see its manifest.json). Several GPUs or
CPUs: torchrun --nproc_per_node 8 tools/generate_segments.py ... --launcher
pytorch; on SLURM: srun ... --launcher slurm.
"""

import argparse
import os
import sys
from pathlib import Path

# The folder above holds the package, in a clone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from radocc_plugin.commands import run  # first: sets the environment of torch

import torch
from mmengine.config import Config, DictAction
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from radocc_plugin.config_file import find_config


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'config',
        nargs='?',
        default='segments_felzenszwalb',
        help='file, or name of a shipped config (configs/segments)',
    )
    parser.add_argument('--ann-file', nargs='+', required=True, help='info pickles')
    parser.add_argument('--data-root', required=True, help='folder the image paths start in')
    parser.add_argument('--out', required=True, help='folder of the maps')
    parser.add_argument('--checkpoint', help='weights of the segmenter')
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision; same as model.segmenter.dtype=float16'
    )
    parser.add_argument('--batch-size', type=int, help='images at a time of each process')
    parser.add_argument('--workers', type=int, help='threads of a segmenter without a GPU')
    parser.add_argument('--work-dir', help='where logs go; default OUT/logs')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings, e.g. model.segmenter.min_area=200',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def make_config(args: argparse.Namespace) -> Config:
    """The config with what the command line says."""
    config = Config.fromfile(find_config(args.config, 'config'))
    config.launcher = args.launcher
    paths = dict(ann_file=args.ann_file, data_root=args.data_root, segments_root=args.out)
    config.update(paths)
    config.test_dataloader.dataset.update(paths)
    config.model.segments_root = args.out
    segmenter = config.model.segmenter
    if 'data_root' in segmenter:
        segmenter.data_root = args.data_root
    for option, name, value in (
        ('checkpoint', 'checkpoint', args.checkpoint),
        ('amp', 'dtype', args.amp and 'float16'),
    ):
        if value:
            if name not in segmenter:
                raise ValueError(f'--{option}: {segmenter.type} of {args.config} takes no {name}')
            segmenter[name] = value
    if args.batch_size is not None:
        config.test_dataloader.batch_size = args.batch_size
    if args.workers is not None:
        config.model.threads = args.workers
    config.work_dir = args.work_dir or os.path.join(args.out, 'logs')
    if args.cfg_options is not None:
        config.merge_from_dict(args.cfg_options)
    return config


def main(argv=None) -> None:
    args = parse_args(argv)
    config = make_config(args)
    if args.launcher == 'pytorch' and not torch.cuda.is_available():
        # MMEngine's own start wants a GPU (mmengine <= 0.10.7).
        torch.distributed.init_process_group('gloo')
    metrics = Runner.from_cfg(config).test()
    if not is_main_process():
        return
    if not metrics['segments/images']:
        print(f'Nothing to do: every image has its map in {args.out}')
        return
    print(
        '{segments/images} maps: {segments/count:.0f} segments an image '
        '({segments/count_min}..{segments/count_max}), '
        '{segments/covered:.0%} covered, {segments/kib:.0f} KiB a map, '
        '{segments/seconds:.2f} s an image and process'.format_map(metrics)
    )
    print(f'In {args.out}')


if __name__ == '__main__':
    run(main)
