"""Trains a model from a config: student, teacher or RadOcc distillation.

python tools/train.py CONFIG [--work-dir DIR] [--resume]
"""

import argparse
import os
import sys
from pathlib import Path

# The folder above holds the package, in a clone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from radocc_plugin.commands import run  # first: sets the environment of torch

from mmengine.config import DictAction
from mmengine.runner import Runner

from radocc_plugin import untrusted
from radocc_plugin.config_file import load_config
from radocc_plugin.engine import InitialWeightsHook, set_start, start_processes
from radocc_plugin.fileio import expand_path


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a model')
    parser.add_argument('config', help='config file, from here or of the package')
    parser.add_argument('--work-dir', help='where logs and checkpoints go')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size'
    )
    parser.add_argument(
        '--sync-bn',
        choices=['none', 'torch', 'mmcv'],
        help='batch norms over all processes, in the form of torch or mmcv; '
        'default what the config says',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from the latest checkpoint of the work dir, where there '
        'is one, or from the file given',
    )
    parser.add_argument('--seed', type=int, help='seed; overrides randomness.seed')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings, e.g. optim_wrapper.optimizer.lr=1e-4',
    )
    parser.add_argument(
        '--trust-checkpoints',
        action='store_true',
        help='lets checkpoint files run code when they are read; without, they are data',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    # torch.distributed.launch passes one of the two spellings.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.trust_checkpoints:
        os.environ[untrusted.TRUST] = '1'
    return args


def main(argv=None) -> None:
    args = parse_args(argv)
    config = load_config(args.config, options=args.cfg_options)
    start_processes(config, args.launcher)
    if args.seed is not None:
        config.randomness = dict(config.get('randomness', {}), seed=args.seed)
    if args.work_dir is not None:
        config.work_dir = expand_path(args.work_dir)
    elif config.get('work_dir') is None:
        config.work_dir = os.path.join('work_dirs', Path(args.config).stem)
    if args.amp:
        config.optim_wrapper.type = 'AmpOptimWrapper'
        config.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in config.get('auto_scale_lr', {}):
            raise ValueError(
                f'{args.config} has no auto_scale_lr.base_batch_size, which --auto-scale-lr needs'
            )
        config.auto_scale_lr.enable = True
    if args.sync_bn is not None:
        config.sync_bn = None if args.sync_bn == 'none' else args.sync_bn
    set_start(config, args.resume)
    runner = Runner.from_cfg(config)
    runner.register_hook(InitialWeightsHook())
    runner.train()


if __name__ == '__main__':
    run(main)
