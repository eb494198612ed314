"""Evaluates a checkpoint and writes a result record.

    python tools/test.py CONFIG CHECKPOINT [--record FILE]

A config of RadOcc evaluates its student: teacher and renderer are not built.
"""
import argparse
import os
import sys
from pathlib import Path

# The folder above holds `projects`, in a clone and in an installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# Before torch is loaded: OpenMP threads that spin while they wait make a CPU
# training four times slower as soon as anything else shares the cores.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from mmengine.config import Config, DictAction
from mmengine.dist import is_main_process
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader

from radocc_plugin.evaluation import make_record, write_record
from radocc_plugin.evaluation.training_log import (
    seconds_per_step)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test a checkpoint')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='where logs go')
    parser.add_argument(
        '--record', help='result record; default WORK_DIR/record.json')
    parser.add_argument('--name', help='label of the row; default the config')
    parser.add_argument(
        '--role',
        choices=['teacher', 'baseline', 'radocc'],
        help='role in the table; default radocc for a distiller, else '
        'baseline')
    parser.add_argument(
        '--family',
        help='rows to compare with each other; default the config of the '
        'student')
    parser.add_argument(
        '--train-dir', help='work dir of the training, for its step time')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def occ_mask(evaluators) -> str:
    """Mask of the OccMetric among the evaluators."""
    if isinstance(evaluators, dict):
        evaluators = [evaluators]
    masks = [e.get('mask', 'camera') for e in evaluators
             if e['type'] == 'radocc_plugin.OccMetric']
    if len(masks) != 1:
        raise ValueError('test_evaluator takes one radocc_plugin.OccMetric '
                         f'for a record, got {len(masks)}')
    return masks[0]


def main() -> None:
    args = parse_args()
    config = Config.fromfile(args.config)
    config.launcher = args.launcher
    if args.cfg_options is not None:
        config.merge_from_dict(args.cfg_options)
    stem = Path(args.config).stem
    if args.work_dir is not None:
        config.work_dir = args.work_dir
    elif config.get('work_dir') is None:
        config.work_dir = os.path.join('work_dirs', stem)
    config.load_from = args.checkpoint

    runner = Runner.from_cfg(config)
    metrics = runner.test()
    if not is_main_process():
        return
    distilled = 'RadOccDistiller' in config.model.type
    dataset = runner.test_dataloader.dataset
    # What the training wrote into its checkpoint, with the options of its
    # command line; a published file may have less.
    trained = CheckpointLoader.load_checkpoint(
        args.checkpoint, map_location='cpu').get('meta', {})
    train_config = config
    if 'cfg' in trained:
        train_config = Config.fromstring(trained['cfg'], '.py')
    record = make_record(
        name=args.name or stem,
        role=args.role or ('radocc' if distilled else 'baseline'),
        family=args.family or stem.replace('radocc_', '', 1),
        metrics=metrics,
        mask=occ_mask(config.test_evaluator),
        seed=trained.get('seed', runner.seed),
        dataset=dataset.metainfo['dataset'],
        version=dataset.metainfo['version'],
        split=Path(dataset.ann_file).stem.replace('radocc_infos_', ''),
        num_samples=len(dataset),
        config=train_config.to_dict(),
        config_file=args.config,
        checkpoint=args.checkpoint,
        epochs=trained.get('epoch'),
        iterations=trained.get('iter'),
        batch_size=train_config.train_dataloader.batch_size,
        seconds_per_step=seconds_per_step(args.train_dir or config.work_dir))
    path = args.record or os.path.join(config.work_dir, 'record.json')
    write_record(path, record)
    print(f'Result record: {path}')


if __name__ == '__main__':
    main()
