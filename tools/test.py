"""Evaluates a checkpoint and writes a result record.

    python tools/test.py CONFIG CHECKPOINT [--record FILE]
    python tools/test.py CONFIG CHECKPOINT --metrics miou rayiou --tta \\
        --dump work_dirs/predictions
    python tools/test.py CONFIG CHECKPOINT --metrics none \\
        --dump work_dirs/test_split --cfg-options \\
        test_dataloader.dataset.ann_file=radocc_infos_test.pkl
    python tools/test.py CONFIG CHECKPOINT --show-dir work_dirs/pictures
    python tools/test.py predictions DUMP --data-root data/nuscenes

A config of RadOcc evaluates its student: teacher and renderer are not built.
``predictions`` counts a dump anew, without a model: see its --help.
"""

import argparse
import copy
import os
import sys
from pathlib import Path

# The folder above holds the package, in a clone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from radocc_plugin.commands import run  # first: sets the environment of torch

from mmengine.config import DictAction
from mmengine.dist import is_main_process
from mmengine.hooks import PrepareTTAHook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from radocc_plugin.commands import score_predictions
from radocc_plugin import untrusted
from radocc_plugin.config_file import load_config
from radocc_plugin.engine import start_processes
from radocc_plugin.engine.streaming import check_order
from radocc_plugin.evaluation import testing
from radocc_plugin.evaluation.tta import VIEWS
from radocc_plugin.fileio import expand_path


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file, from here or of the package')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='where logs go')
    parser.add_argument('--record', help='result record; default WORK_DIR/record.json')
    parser.add_argument('--name', help='label of the row; default the config')
    parser.add_argument(
        '--role',
        choices=['teacher', 'baseline', 'radocc'],
        help='role in the table; default radocc for a distiller, else baseline',
    )
    parser.add_argument(
        '--family', help='rows to compare with each other; default the config of the student'
    )
    parser.add_argument('--train-dir', help='work dir of the training, for its step time')
    parser.add_argument(
        '--metrics',
        nargs='+',
        choices=[*sorted(testing.NAMED_METRICS), 'none'],
        help='replaces the test_evaluator of the config; "none" only writes '
        'the dump and reads no labels: for the test split',
    )
    parser.add_argument(
        '--tta',
        nargs='*',
        choices=VIEWS,
        metavar='VIEW',
        help=f'test-time augmentation: averages the views that {VIEWS} '
        f'make together; default {" ".join(testing.FLIPS)}; "identity" runs '
        'the plain view through the same model. A config with tta_model and '
        'tta_pipeline '
        'brings its own',
    )
    parser.add_argument(
        '--dump', metavar='DIR', help='writes predictions to DIR/SCENE/TOKEN/labels.npz'
    )
    parser.add_argument('--show-dir', metavar='DIR', help='draws sheets: DIR/SCENE/TOKEN.png')
    parser.add_argument(
        '--show-interval', type=int, default=1, help='draws one of so many samples (of each GPU)'
    )
    parser.add_argument(
        '--allow-partial',
        action='store_true',
        help='tests a checkpoint whose keys or shapes differ from the '
        "model's; without, that is an error",
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    parser.add_argument(
        '--trust-checkpoints',
        action='store_true',
        help='lets checkpoint files run code when they are read; without, they are data',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args(argv)
    if 'none' in (args.metrics or ()):
        if len(args.metrics) > 1 or args.dump is None:
            parser.error('--metrics none takes no other metric, and --dump')
        args.metrics = []
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.trust_checkpoints:
        os.environ[untrusted.TRUST] = '1'
    return args


def main(argv=None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ['predictions']:
        return score_predictions.main(argv[1:])
    args = parse_args(argv)
    config = load_config(args.config, options=args.cfg_options)
    start_processes(config, args.launcher)
    stem = Path(args.config).stem
    if args.work_dir is not None:
        config.work_dir = expand_path(args.work_dir)
    elif config.get('work_dir') is None:
        config.work_dir = os.path.join('work_dirs', stem)
    # the config that a resumed training leaves says resume=True; loaded below
    config.load_from, config.resume = None, False
    plain_config = copy.deepcopy(config)
    init_default_scope(config.get('default_scope', 'mmengine'))
    if args.metrics is not None:
        config.test_evaluator = [testing.NAMED_METRICS[name] for name in args.metrics]
        if not args.metrics:
            testing.leave_labels_out(config)
    evaluators = testing.evaluators_of(config)
    testing.check_probabilities(evaluators, args.tta)
    testing.bring_logits(config, evaluators, args.tta)
    masks = testing.record_masks(evaluators)
    if args.dump is not None:
        config.test_evaluator = evaluators + [
            dict(type='radocc_plugin.DumpPredictions', out_dir=expand_path(args.dump))
        ]
    if args.show_dir is not None:
        config.custom_hooks = [
            *(config.get('custom_hooks') or ()),
            dict(
                type='radocc_plugin.OccVisualizationHook',
                out_dir=expand_path(args.show_dir),
                interval=args.show_interval,
            ),
        ]
    tta_model = None
    if args.tta is not None:
        tta_model = testing.use_tta(config, args.tta)

    runner = Runner.from_cfg(config)
    if tta_model is not None:
        runner.register_hook(PrepareTTAHook(tta_cfg=dict(tta_model)))
    checkpoint = testing.load_strictly(runner, expand_path(args.checkpoint), args.allow_partial)
    loader = runner.test_loop.dataloader
    check_order(runner.model, loader)
    tta = () if args.tta is None else args.tta or testing.FLIPS
    distilled = 'RadOccDistiller' in str(config.model.type)
    description = dict(
        name=args.name or stem,
        role=args.role or ('radocc' if distilled else 'baseline'),
        family=args.family or stem.replace('radocc_', '', 1),
        config_file=args.config,
        tta=[view for view in tta if view != 'identity'],
        **testing.describe_data(loader.dataset),
        **testing.describe_training(
            args.checkpoint,
            checkpoint,
            plain_config,
            args.train_dir or config.work_dir,
            runner.seed,
        ),
    )
    record = args.record or os.path.join(config.work_dir, 'record.json')
    testing.write_records(record, masks, None, description)

    metrics = runner.test()
    if not is_main_process():
        return
    testing.save_metrics(os.path.join(config.work_dir, 'metrics.json'), metrics)
    for path in testing.write_records(record, masks, metrics, description):
        print(f'Result record: {path}')


if __name__ == '__main__':
    run(main)
