"""Result records: one JSON file an evaluated run, enough to repeat it.

``tools/reproduce_table.py`` makes tables of them. Fields of a record:

    name        label of the table row, e.g. 'BEVDetOcc + RadOcc'
    role        'teacher', 'baseline' or 'radocc'
    family      runs to compare with each other: same student, same schedule
    metrics     mIoU, IoU and per_class (in order), percent; null = absent;
                RayIoU, RayIoU@1, @2 and @4 where they were measured;
                NLL (nats) and depth_error (metres) of OccLikelihood likewise;
                out_of_range and free of LiDAR segmentation
    mask        voxels that were counted: 'camera', 'lidar', 'both' or
                'none'; or 'points' for LiDAR segmentation
    seed        seed of the training
    data        dataset, version, split, num_samples (evaluated)
    label_space classes and grid, a dataset's metainfo (see ``LabelSpace``);
                records of earlier versions lack it: Occ3D-nuScenes
    config      file (name only) and hash, of what it computes and of
                initial_weights
    initial_weights
                file (name only) and hash of what the training started from,
                null for what its config initialises, or if not known
    training    epochs, iterations, batch_size (a GPU), gpus, seconds_per_step
    versions    python, torch, mmengine, mmcv or mmcv-lite, mmdet, our own
    git         commit and dirty (uncommitted changes), null outside git
    checkpoint  file name
    tta         views of test-time augmentation; absent without it
    date        of writing, UTC, ISO 8601
"""

import hashlib
import json
import math
import platform
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Union

from radocc_plugin.evaluation.lidarseg_metric import LIDARSEG_CLASSES
from radocc_plugin.fileio import write_atomically
from radocc_plugin.label_space import LabelSpace
from radocc_plugin.occ3d import OCC3D_NUSCENES

ROLES = ('teacher', 'baseline', 'radocc')
RAY_SCORES = ('RayIoU', 'RayIoU@1', 'RayIoU@2', 'RayIoU@4')
SOFT_SCORES = ('NLL', 'depth_error')
POINT_SCORES = ('out_of_range', 'free')
PACKAGES = ('torch', 'mmengine', 'mmcv', 'mmcv-lite', 'mmdet', 'radocc_plugin')

# Keys that say where or how a config runs, not what it computes.
RUNTIME_KEYS = (
    'work_dir',
    'resume',
    'load_from',
    'launcher',
    'log_level',
    'log_processor',
    'visualizer',
    'vis_backends',
    'randomness',
    'env_cfg',
    'custom_imports',
    'data_root',
    'pin_memory',
    'non_blocking',
)

# field -> type, in the order of the file
_FIELDS: Dict[str, Any] = dict(
    name=str,
    role=str,
    family=str,
    metrics=dict,
    mask=str,
    seed=int,
    data=dict,
    config=dict,
    training=dict,
    versions=dict,
    git=dict,
    checkpoint=str,
    date=str,
)
_SUBFIELDS = dict(
    metrics=('mIoU', 'IoU', 'per_class'),
    data=('dataset', 'version', 'split', 'num_samples'),
    config=('file', 'hash'),
    training=('epochs', 'iterations', 'batch_size', 'gpus', 'seconds_per_step'),
    git=('commit', 'dirty'),
)


def make_record(
    *,
    name: str,
    role: str,
    family: str,
    metrics: Optional[Mapping[str, float]],
    space: LabelSpace,
    mask: str,
    seed: int,
    dataset: str,
    version: str,
    split: str,
    num_samples: int,
    config: Mapping,
    config_file: Union[str, Path],
    checkpoint: Union[str, Path],
    epochs: Optional[int] = None,
    iterations: Optional[int] = None,
    batch_size: Optional[int] = None,
    gpus: Optional[int] = None,
    seconds_per_step: Optional[float] = None,
    tta: Sequence[str] = (),
    initial_weights: Optional[dict] = None,
) -> dict:
    """Collects what is known about an evaluated run.

    Args:
        name, role, family, mask, seed: See the legend of this module.
        metrics: What the evaluator returned; the keys ``mIoU``, ``IoU`` and
            ``IoU_<class>`` are looked up with or without a prefix 'occ/'
            ('lidarseg/' with the mask 'points'), RayIoU with 'ray/'.
        space: Classes and grid of the evaluated data.
        dataset, version, split, num_samples: The evaluated data.
        config: The resolved config, as ``Config.to_dict()`` gives it.
        config_file, checkpoint: Only their names are kept.
        epochs, iterations: Length of the training.
        batch_size, gpus: Samples a device, and number of GPUs of the
            training (0 = CPU, None = not known).
        seconds_per_step: Median time of a training iteration.
        tta: Views of test-time augmentation.
        initial_weights: See the legend of this module.

    Raises:
        ValueError: If ``role`` is unknown or a metric is missing.
    """

    of_points = mask == 'points'
    prefix = 'lidarseg' if of_points else 'occ'

    def metric(key: str) -> Optional[float]:
        if metrics is None:
            return None
        value = metrics.get(f'{prefix}/{key}', metrics.get(key))
        if value is None and of_points and (key == 'IoU' or key[4:] not in LIDARSEG_CLASSES):
            return None
        if value is None:
            raise ValueError(f'metrics lack {key}; got {sorted(metrics)}')
        return None if math.isnan(value) else float(value)

    more = {key: metric(key) for key in POINT_SCORES if of_points}
    if not of_points and 'ray/RayIoU' in (metrics or ()):
        more = {key: metric(f'ray/{key}') for key in RAY_SCORES}
    if not of_points and 'soft/NLL' in (metrics or ()):
        more.update((key, metric(f'soft/{key}')) for key in SOFT_SCORES)
    record = dict(
        name=name,
        role=role,
        family=family,
        metrics=dict(
            mIoU=metric('mIoU'),
            IoU=metric('IoU'),
            per_class={c: metric(f'IoU_{c}') for c in space.classes[:-1]},
            **more,
        ),
        mask=mask,
        seed=seed,
        data=dict(dataset=dataset, version=version, split=split, num_samples=num_samples),
        label_space=json.loads(json.dumps(space.metainfo())),
        config=dict(file=Path(config_file).name, hash=config_hash(config, initial_weights)),
        initial_weights=initial_weights,
        training=dict(
            epochs=epochs,
            iterations=iterations,
            batch_size=batch_size,
            gpus=gpus,
            seconds_per_step=seconds_per_step,
        ),
        versions=_versions(),
        git=_git_state(),
        checkpoint=Path(checkpoint).name,
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
    )
    if tta:
        record['tta'] = list(tta)
    _check(record, 'record')
    return record


def config_hash(config: Mapping, initial_weights: Optional[dict] = None) -> str:
    """Short hash of what a config computes, and of what it starts from.

    Two runs of one config that differ in work folder, data folder, seed,
    launcher or logging (``RUNTIME_KEYS``, at any depth) have the same hash, as
    have those that differ in the folder of a checkpoint alone: students of
    several teachers are one row.
    """

    def strip(value):
        if isinstance(value, Mapping):
            return {
                str(k): Path(v).name if k == 'checkpoint' and isinstance(v, str) else strip(v)
                for k, v in value.items()
                if k not in RUNTIME_KEYS
            }
        if isinstance(value, (list, tuple)):
            return [strip(v) for v in value]
        return value

    text = json.dumps(strip(config), sort_keys=True, default=str)
    if initial_weights is not None:
        text += str(initial_weights['hash'] or initial_weights['file'])
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def write_record(path: Union[str, Path], record: dict) -> None:
    """Writes a record as JSON, atomically.

    Raises:
        ValueError: If a field is missing or has another type.
    """
    _check(record, str(path))
    write_atomically(path, json.dumps(record, indent=2, allow_nan=False))


def read_records(paths: Iterable[Union[str, Path]]) -> List[dict]:
    """Reads record files.

    Raises:
        ValueError: Naming the file, and the field if one is missing or wrong.
    """
    records = []
    for path in paths:
        try:
            record = json.loads(Path(path).read_text())
        except OSError as error:
            raise ValueError(f'{path}: cannot be read ({error})') from error
        except ValueError as error:
            raise ValueError(f'{path}: no valid JSON ({error})') from error
        if not isinstance(record, dict):
            raise ValueError(f'{path}: a record is a JSON object, got {type(record).__name__}')
        _check(record, str(path))
        records.append(record)
    return records


def space_of(record: dict) -> LabelSpace:
    """Classes and grid that a record was measured on.

    Raises:
        ValueError: If its field ``label_space`` does not fit.
    """
    if 'label_space' not in record:
        return OCC3D_NUSCENES
    return LabelSpace.from_metainfo(record['label_space'], 'a record')


def _check(record: dict, where: str) -> None:
    for field, kind in _FIELDS.items():
        if field not in record:
            raise ValueError(f'{where}: field {field!r} is missing')
        if not isinstance(record[field], kind):
            raise ValueError(
                f'{where}: field {field!r} takes {kind.__name__}, got {record[field]!r}'
            )
    for field, names in _SUBFIELDS.items():
        for name in names:
            if name not in record[field]:
                raise ValueError(f"{where}: field '{field}.{name}' is missing")
    if record['role'] not in ROLES:
        raise ValueError(f"{where}: field 'role' takes one of {ROLES}, got {record['role']!r}")
    metrics = record['metrics']
    if not isinstance(metrics['per_class'], dict):
        raise ValueError(
            f"{where}: field 'metrics.per_class' takes dict, got {metrics['per_class']!r}"
        )
    try:
        space = space_of(record)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: field 'label_space': {error}") from error
    for name in space.classes[:-1]:
        if name not in metrics['per_class']:
            raise ValueError(f"{where}: field 'metrics.per_class.{name}' is missing")
    values = dict(
        metrics['per_class'],
        mIoU=metrics['mIoU'],
        IoU=metrics['IoU'],
        **{name: metrics.get(name) for name in ('RayIoU', *SOFT_SCORES)},
    )
    for name, value in values.items():
        if value is not None and not isinstance(value, (int, float)):
            raise ValueError(
                f"{where}: field 'metrics.{name}' takes a number or null, got {value!r}"
            )


def _versions() -> Dict[str, Optional[str]]:
    versions: Dict[str, Optional[str]] = dict(python=platform.python_version())
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def _git_state() -> dict:
    """Commit of the checkout this package runs from."""

    def git(*args: str) -> str:
        return subprocess.run(
            ('git', *args), cwd=Path(__file__).parent, capture_output=True, check=True, text=True
        ).stdout.strip()

    try:
        # an installed copy may lie inside someone else's repository
        git('ls-files', '--error-unmatch', Path(__file__).name)
        return dict(
            commit=git('rev-parse', 'HEAD'), dirty=bool(git('status', '--porcelain', '-uno'))
        )
    except (OSError, subprocess.CalledProcessError):
        return dict(commit=None, dirty=None)
