"""A test run: what it evaluates, what its record says, what it must have.

All that a record needs is known before the first batch; metrics are written
as soon as they are there.
"""

import json
import math
from pathlib import Path
from typing import List, Mapping, Optional, Sequence, Union

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import HOOKS, METRICS, TRANSFORMS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader

from radocc_plugin.checkpoints import DISTILL, load_from_checkpoint
from radocc_plugin.datasets import LoadLabels
from radocc_plugin.config_file import dataset_configs
from radocc_plugin.engine.logits_hook import LogitsForMetrics
from radocc_plugin.evaluation.lidarseg_metric import LidarSegMetric
from radocc_plugin.evaluation.likelihood import OccLikelihood
from radocc_plugin.evaluation.occ_metric import OccMetric
from radocc_plugin.evaluation.records import make_record, write_record
from radocc_plugin.evaluation.training_log import seconds_per_step, training_gpus
from radocc_plugin.evaluation.tta import tta_pipeline
from radocc_plugin.fileio import expand_path, write_atomically
from radocc_plugin.label_space import LabelSpace

# Evaluators by the names of --metrics.
NAMED_METRICS = dict(
    miou=dict(type='radocc_plugin.OccMetric'),
    rayiou=dict(type='radocc_plugin.RayIoU'),
    lidarseg=dict(type='radocc_plugin.LidarSegMetric', free_voxels='occupied'),
    likelihood=dict(type='radocc_plugin.OccLikelihood'),
)
FLIPS = ('flip_x', 'flip_y', 'flip_image')
UNKNOWN = 'unknown'


def evaluators_of(config: Config) -> List[dict]:
    """The test evaluators as a list of configs."""
    evaluators = config.get('test_evaluator') or []
    return [evaluators] if isinstance(evaluators, dict) else list(evaluators)


def is_type(config: Mapping, kind: type, registry) -> bool:
    """Whether a config builds a class, named in full, in short or itself."""
    found = config['type']
    if isinstance(found, str):
        # as the runner finds it, whatever the default scope
        with registry.switch_scope_and_registry(None) as scoped:
            found = scoped.get(found)
    return isinstance(found, type) and issubclass(found, kind)


def record_masks(evaluators: Sequence[dict]) -> List[Optional[str]]:
    """Masks to write records of: one for voxels, which is None for the
    benchmark's own, one for points.

    Raises:
        ValueError: If several evaluators count voxels.
    """
    masks = [
        e.get('mask') for e in evaluators if is_type(e, OccMetric, METRICS) and not e.get('ring')
    ]
    if len(masks) > 1:
        raise ValueError(
            f'test_evaluator takes one radocc_plugin.OccMetric for a record, got {len(masks)}'
        )
    if any(is_type(e, LidarSegMetric, METRICS) for e in evaluators):
        masks.append('points')
    return masks


def check_probabilities(evaluators: Sequence[dict], views: Optional[Sequence[str]]) -> None:
    """Refuses LiDAR segmentation that would fail at the first sample.

    Raises:
        ValueError: If an evaluator needs probabilities and nothing makes them.
    """
    for evaluator in evaluators:
        if (
            is_type(evaluator, LidarSegMetric, METRICS)
            and evaluator.get('free_voxels') == 'occupied'
            and views is None
        ):
            raise ValueError(
                "LidarSegMetric(free_voxels='occupied') takes the model's "
                'probabilities, which --tta identity (or other views) makes; '
                "without, leave --metrics out and set free_voxels='miss' in "
                'the test_evaluator of the config'
            )


def bring_logits(config: Config, evaluators: Sequence[dict], views: Optional[Sequence[str]]):
    """Adds the hook that gives logits to the evaluators that take them.

    Raises:
        ValueError: If several views of a sample are averaged.
    """
    if not any(is_type(evaluator, OccLikelihood, METRICS) for evaluator in evaluators):
        return
    if views is not None:
        raise ValueError('OccLikelihood takes the logits of one view; leave --tta out')
    hooks = list(config.get('custom_hooks') or ())
    if not any(is_type(hook, LogitsForMetrics, HOOKS) for hook in hooks):
        config.custom_hooks = [*hooks, dict(type='radocc_plugin.LogitsForMetrics')]


def leave_labels_out(config: Config) -> None:
    """Takes the loader of the labels out of the test pipeline."""
    for dataset in dataset_configs(config.test_dataloader.dataset):
        kept = [step for step in dataset['pipeline'] if not is_type(step, LoadLabels, TRANSFORMS)]
        if len(kept) < len(dataset['pipeline']):
            print_log('--metrics none: the test pipeline reads no labels, their loader is left out')
        dataset['pipeline'] = kept


def use_tta(config: Config, views: Sequence[str]) -> dict:
    """Gives the config views and a TTA model; returns the model's config."""
    config.tta_model = config.get('tta_model', dict(type='radocc_plugin.OccTTAModel'))
    for dataset in dataset_configs(config.test_dataloader.dataset):
        dataset['pipeline'] = config.get('tta_pipeline') or tta_pipeline(
            dataset['pipeline'], views or FLIPS
        )
    return config.tta_model


def describe_data(dataset) -> dict:
    """What a record says of the data; ``unknown`` where they do not tell."""
    parts = getattr(dataset, 'datasets', [dataset])
    metainfo = getattr(dataset, 'metainfo', {})
    splits = [
        Path(getattr(part, 'ann_file', '') or UNKNOWN).stem.replace('radocc_infos_', '')
        for part in parts
    ]
    return dict(
        space=LabelSpace.from_metainfo(metainfo),
        dataset=metainfo.get('dataset', UNKNOWN),
        version=metainfo.get('version') or UNKNOWN,
        split='+'.join(splits),
        num_samples=len(dataset),
    )


def load_strictly(runner: Runner, filename: str, allow_partial: bool = False) -> dict:
    """Loads a checkpoint as ``Runner.load_checkpoint``, which only logs keys
    that are missing; returns it.

    Raises:
        ValueError: If keys or shapes differ, unless ``allow_partial``.
    """
    checkpoint = CheckpointLoader.load_checkpoint(filename, map_location='cpu')
    runner.call_hook('after_load_checkpoint', checkpoint=checkpoint)
    model = getattr(runner.model, 'module', runner.model)  # DDP
    # A plain student's file has nothing of the distillation, which a test
    # does not need.
    load_from_checkpoint(model, checkpoint, filename, allow_partial=allow_partial, optional=DISTILL)
    return checkpoint


def describe_training(
    filename: str, checkpoint: Mapping, config: Config, train_dir: Union[str, Path], seed: int
) -> dict:
    """What a record says of the training that made a checkpoint.

    Args:
        filename: Its file.
        checkpoint: What it holds; a published one may tell nothing.
        config: Taken where the checkpoint has no config that can be read.
        train_dir: Work folder of the training, for its logs.
        seed: Taken where the checkpoint has none.
    """
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    if isinstance(meta.get('cfg'), str):
        try:
            # with the options of the training's command line
            config = Config.fromstring(meta['cfg'], '.py')
        except Exception as error:  # it may be the file of any codebase
            print_log(
                f'the config inside {filename} cannot be read '
                f'({error}); the record takes the one given'
            )
    return dict(
        seed=seed if meta.get('seed') is None else int(meta['seed']),
        config=config.to_dict(),
        checkpoint=filename,
        initial_weights=meta.get('initial_weights'),
        # MMEngine's loop by iterations counts no epochs
        epochs=meta.get('epoch') or None,
        iterations=meta.get('iter'),
        batch_size=(config.get('train_dataloader') or {}).get('batch_size'),
        gpus=training_gpus(train_dir),
        seconds_per_step=seconds_per_step(train_dir),
    )


def save_metrics(path: Union[str, Path], metrics: Mapping) -> None:
    """Writes metrics as JSON; NaN and what is no number become null."""
    values = {
        key: value if isinstance(value, (int, float)) and math.isfinite(value) else None
        for key, value in metrics.items()
    }
    write_atomically(path, json.dumps(values, indent=2))


def write_records(
    path: Union[str, Path],
    masks: Sequence[Optional[str]],
    metrics: Optional[Mapping],
    description: dict,
) -> List[Path]:
    """Writes a record for each mask; the first mask's last of all.

    Where the first is, the others are, too.

    Args:
        path: File of the first; the others' have their mask in the name.
        masks: See :func:`record_masks`.
        metrics: Of the evaluators; None only checks the rest.
        description: Further arguments of ``make_record``.

    Returns:
        The files, in the order of writing.

    Raises:
        ValueError: If a record lacks something, or its folder cannot be.
    """
    path = Path(expand_path(str(path)))
    space = description['space']
    names = ['points' if m == 'points' else space.mask(m, 'OccMetric') for m in masks]
    if metrics is None:
        for mask in names:
            make_record(metrics=None, mask=mask, **description)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f'--record {path}: {error}') from error
        return []
    written = []
    for number, mask in reversed(list(enumerate(names))):
        target = path if number == 0 else path.with_name(f'{path.stem}_{mask}{path.suffix}')
        write_record(target, make_record(metrics=metrics, mask=mask, **description))
        written.append(target)
    return written
