"""Evaluates a checkpoint and writes a result record.

    python tools/test.py CONFIG CHECKPOINT [--record FILE]
    python tools/test.py CONFIG CHECKPOINT --metrics miou rayiou --tta \\
        --dump work_dirs/predictions
    python tools/test.py CONFIG CHECKPOINT --metrics none \\
        --dump work_dirs/test_split --cfg-options \\
        test_dataloader.dataset.ann_file=radocc_infos_test.pkl
    python tools/test.py CONFIG CHECKPOINT --show-dir work_dirs/pictures

A config of RadOcc evaluates its student: teacher and renderer are not built.
"""
import argparse
import copy
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
from mmengine.hooks import PrepareTTAHook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader

from radocc_plugin.checkpoints import load_from_checkpoint
from radocc_plugin.config_file import load_config
from radocc_plugin.datasets import LoadLabels
from radocc_plugin.evaluation import make_record, tta_pipeline, write_record
from radocc_plugin.evaluation.training_log import (
    seconds_per_step,
    training_gpus,
)
from radocc_plugin.evaluation.tta import VIEWS
from radocc_plugin.label_space import LabelSpace
from radocc_plugin.registry import TRANSFORMS

# Evaluators by the names of --metrics.
METRICS = dict(
    miou=dict(type='radocc_plugin.OccMetric'),
    rayiou=dict(type='radocc_plugin.RayIoU'),
    lidarseg=dict(
        type='radocc_plugin.LidarSegMetric', free_voxels='occupied'))
FLIPS = ('flip_x', 'flip_y', 'flip_image')


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test a checkpoint')
    parser.add_argument(
        'config', help='config file, from here or of the package')
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
    parser.add_argument(
        '--metrics',
        nargs='+',
        choices=[*sorted(METRICS), 'none'],
        help='replaces the test_evaluator of the config; "none" only writes '
        'the dump and reads no labels: for the test split')
    parser.add_argument(
        '--tta',
        nargs='*',
        choices=VIEWS,
        metavar='VIEW',
        help=f'test-time augmentation: averages the views that {VIEWS} make '
        f'together; default {" ".join(FLIPS)}; "identity" runs the plain view '
        'through the same model. A config with tta_model and tta_pipeline '
        'brings its own')
    parser.add_argument(
        '--dump',
        metavar='DIR',
        help='writes predictions to DIR/SCENE/TOKEN/labels.npz')
    parser.add_argument(
        '--show-dir', metavar='DIR', help='draws sheets: DIR/SCENE/TOKEN.png')
    parser.add_argument(
        '--show-interval', type=int, default=1,
        help='draws one of so many samples (of each GPU)')
    parser.add_argument(
        '--allow-partial', action='store_true',
        help='tests a checkpoint whose keys or shapes differ from the '
        "model's; without, that is an error")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args(argv)
    if 'none' in (args.metrics or ()):
        if len(args.metrics) > 1 or args.dump is None:
            parser.error('--metrics none takes no other metric, and --dump')
        args.metrics = []
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def evaluators_of(config) -> list:
    """The test evaluators as a list of configs."""
    evaluators = config.test_evaluator
    return [evaluators] if isinstance(evaluators, dict) else list(evaluators)


def record_masks(evaluators) -> list:
    """Masks to write records of: one for voxels, which is None for the
    benchmark's own, one for points."""
    masks = [
        e.get('mask') for e in evaluators
        if e['type'] == 'radocc_plugin.OccMetric' and not e.get('ring')
    ]
    if len(masks) > 1:
        raise ValueError('test_evaluator takes one radocc_plugin.OccMetric '
                         f'for a record, got {len(masks)}')
    if any(e['type'] == 'radocc_plugin.LidarSegMetric' for e in evaluators):
        masks.append('points')
    return masks


def check_probabilities(evaluators, views) -> None:
    """Refuses LiDAR segmentation that would fail at the first sample.

    Raises:
        ValueError: If an evaluator needs probabilities and nothing makes them.
    """
    for evaluator in evaluators:
        if (evaluator['type'] == 'radocc_plugin.LidarSegMetric'
                and evaluator.get('free_voxels') == 'occupied'
                and views is None):
            raise ValueError(
                "LidarSegMetric(free_voxels='occupied') takes the model's "
                'probabilities, which --tta identity (or other views) makes; '
                "without, leave --metrics out and set free_voxels='miss' in "
                'the test_evaluator of the config')


def leave_labels_out(config) -> None:
    """Takes the loader of the labels out of the test pipeline."""
    dataset = config.test_dataloader.dataset
    kept = [
        step for step in dataset.pipeline
        if not issubclass(TRANSFORMS.get(step['type']) or object, LoadLabels)
    ]
    if len(kept) < len(dataset.pipeline):
        print_log('--metrics none: the test pipeline reads no labels, their '
                  'loader is left out')
    dataset.pipeline = kept


def use_tta(config, views) -> list:
    """Gives the config views and a TTA model; returns the model's config."""
    config.tta_model = config.get('tta_model',
                                  dict(type='radocc_plugin.OccTTAModel'))
    pipeline = config.get('tta_pipeline')
    if pipeline is None:
        pipeline = tta_pipeline(config.test_dataloader.dataset.pipeline,
                                views or FLIPS)
    config.test_dataloader.dataset.pipeline = pipeline
    return config.tta_model


def load_strictly(runner: Runner, filename: str,
                  allow_partial: bool) -> dict:
    """Loads a checkpoint as ``Runner.load_checkpoint``, which only logs keys
    that are missing; returns it.

    Raises:
        ValueError: If keys or shapes differ, unless ``allow_partial``.
    """
    checkpoint = CheckpointLoader.load_checkpoint(
        filename, map_location='cpu')
    runner.call_hook('after_load_checkpoint', checkpoint=checkpoint)
    model = getattr(runner.model, 'module', runner.model)  # DDP
    # A plain student's file has nothing of the distillation, which a test
    # does not need.
    load_from_checkpoint(model, checkpoint, filename,
                         allow_partial=allow_partial, optional=['distill.'])
    return checkpoint


def main(argv=None) -> None:
    args = parse_args(argv)
    config = load_config(args.config)
    config.launcher = args.launcher
    if args.cfg_options is not None:
        config.merge_from_dict(args.cfg_options)
    stem = Path(args.config).stem
    if args.work_dir is not None:
        config.work_dir = args.work_dir
    elif config.get('work_dir') is None:
        config.work_dir = os.path.join('work_dirs', stem)
    config.load_from, config.resume = None, False  # see load_strictly
    plain_config = copy.deepcopy(config)
    if args.metrics is not None:
        config.test_evaluator = [METRICS[name] for name in args.metrics]
        if not args.metrics:
            leave_labels_out(config)
    evaluators = evaluators_of(config)
    check_probabilities(evaluators, args.tta)
    masks = record_masks(evaluators)
    if args.dump is not None:
        config.test_evaluator = evaluators + [
            dict(type='radocc_plugin.DumpPredictions', out_dir=args.dump)
        ]
    if args.show_dir is not None:
        config.custom_hooks = [
            *(config.get('custom_hooks') or ()),
            dict(
                type='radocc_plugin.OccVisualizationHook',
                out_dir=args.show_dir,
                interval=args.show_interval)
        ]
    tta_model = None
    if args.tta is not None:
        tta_model = use_tta(config, args.tta)

    runner = Runner.from_cfg(config)
    if tta_model is not None:
        runner.register_hook(PrepareTTAHook(tta_cfg=dict(tta_model)))
    checkpoint = load_strictly(runner, args.checkpoint, args.allow_partial)
    metrics = runner.test()
    if not is_main_process():
        return
    space = LabelSpace.from_metainfo(
        runner.test_dataloader.dataset.metainfo)
    masks = [m if m == 'points' else space.mask(m, 'OccMetric') for m in masks]
    distilled = 'RadOccDistiller' in config.model.type
    dataset = runner.test_dataloader.dataset
    # What the training wrote into its checkpoint, with the options of its
    # command line; a published file may have less.
    trained = checkpoint.get('meta', {})
    train_config = plain_config
    if 'cfg' in trained:
        train_config = Config.fromstring(trained['cfg'], '.py')
    train_dir = args.train_dir or config.work_dir
    tta = () if args.tta is None else args.tta or FLIPS
    path = Path(args.record or os.path.join(config.work_dir, 'record.json'))
    # The first mask's record last: where it is, the others are, too.
    for number, mask in reversed(list(enumerate(masks))):
        record = make_record(
            name=args.name or stem,
            role=args.role or ('radocc' if distilled else 'baseline'),
            family=args.family or stem.replace('radocc_', '', 1),
            metrics=metrics,
            space=space,
            mask=mask,
            seed=trained.get('seed', runner.seed),
            dataset=dataset.metainfo['dataset'],
            version=dataset.metainfo['version'],
            split=Path(dataset.ann_file).stem.replace('radocc_infos_', ''),
            num_samples=len(dataset),
            config=train_config.to_dict(),
            config_file=args.config,
            checkpoint=args.checkpoint,
            # MMEngine's loop by iterations counts no epochs
            epochs=trained.get('epoch') or None,
            iterations=trained.get('iter'),
            batch_size=train_config.train_dataloader.batch_size,
            gpus=training_gpus(train_dir),
            seconds_per_step=seconds_per_step(train_dir),
            tta=[view for view in tta if view != 'identity'])
        target = path if number == 0 else path.with_name(
            f'{path.stem}_{mask}{path.suffix}')
        write_record(target, record)
        print(f'Result record: {target}')


if __name__ == '__main__':
    main()
