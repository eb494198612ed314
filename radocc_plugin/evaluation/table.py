"""From result records to the rows of a comparison table."""

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from radocc_plugin.evaluation.published import BENCHMARKS, SCORES, Quoted
from radocc_plugin.evaluation.records import ROLES, SOFT_SCORES, space_of
from radocc_plugin.label_space import LabelSpace
from radocc_plugin.occ3d import OCC3D_NUSCENES

# 97.5 % quantiles of Student's t for 1, 2, ... 30 degrees of freedom; the
# last also stands for more, where it is at most 4 % too wide.
T_QUANTILES = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
    2.120,
    2.110,
    2.101,
    2.093,
    2.086,
    2.080,
    2.074,
    2.069,
    2.064,
    2.060,
    2.056,
    2.052,
    2.048,
    2.045,
    2.042,
)


@dataclass
class Delta:
    """Difference of mIoU to the baseline, paired over the seeds both have.

    Args:
        differences: One a seed, percentage points.
    """

    differences: List[float]

    @property
    def mean(self) -> float:
        return float(np.mean(self.differences))

    @property
    def std(self) -> Optional[float]:
        """Sample standard deviation; None with one seed."""
        if len(self.differences) < 2:
            return None
        return float(np.std(self.differences, ddof=1))

    @property
    def interval(self) -> Optional[Tuple[float, float]]:
        """95 % t-interval of the mean gain; None with one seed."""
        if self.std is None:
            return None
        count = len(self.differences)
        quantile = T_QUANTILES[min(count - 1, len(T_QUANTILES)) - 1]
        half = quantile * self.std / count**0.5
        return self.mean - half, self.mean + half

    def __str__(self) -> str:
        interval = ' [{:+.2f}, {:+.2f}]'.format(*self.interval) if self.interval else ''
        return f'{self.mean:+.2f}{interval}'

    @property
    def verdict(self) -> str:
        if self.interval is None:
            return 'one seed: noise unknown'
        low, high = self.interval
        return 'within noise' if low <= 0 <= high else ''


@dataclass
class Row:
    """One method: the runs of one config with several seeds.

    Args:
        name: Label.
        values: By seed: mIoU, IoU, RayIoU and the K non-free classes in
            percent, then ``SOFT_SCORES``, shape (3 + K + 2,); NaN for what is
            absent.
        config: Config file name.
        config_hash: Hash of the config.
        epochs: Epochs of the training, None if unknown or trained by steps.
        iterations: Steps of the training, None if unknown.
        gpus: GPUs of the training, 0 for a CPU, None if unknown.
        tta: Views of test-time augmentation.
        role: 'teacher', 'baseline' or 'radocc'.
        delta: To the baseline of the family; None for other roles, or where
            no seed is shared.
        further: The same for IoU, the groups of classes and
            ``SOFT_SCORES`` (where less is better), by name.
    """

    name: str
    role: str
    family: str
    config: str
    config_hash: str
    epochs: Optional[int]
    iterations: Optional[int]
    gpus: Optional[int]
    tta: Tuple[str, ...] = ()
    values: Dict[int, np.ndarray] = field(default_factory=dict)
    delta: Optional[Delta] = None
    further: Dict[str, Delta] = field(default_factory=dict)

    @property
    def seeds(self) -> List[int]:
        return sorted(self.values)

    @property
    def mean(self) -> np.ndarray:
        """Mean over seeds; NaN for a class that one of them lacks."""
        return np.mean(list(self.values.values()), axis=0)

    @property
    def classes(self) -> np.ndarray:
        """Mean over seeds of the classes."""
        return self.mean[len(SCORES) : -len(SOFT_SCORES)]

    @property
    def std(self) -> Optional[np.ndarray]:
        """Sample standard deviation over seeds; None with one seed."""
        if len(self.values) < 2:
            return None
        return np.std(list(self.values.values()), axis=0, ddof=1)


_VOXELS = 'mIoU over the {} non-free classes'
_COUNTED = {
    'camera': f'Voxels counted: camera mask (mask: camera). {_VOXELS}',
    'lidar': f'Voxels counted: lidar mask (mask: lidar). {_VOXELS}',
    'both': f'Voxels counted: camera and lidar mask (mask: both). {_VOXELS}',
    'none': f'Voxels counted: all (mask: none). {_VOXELS}',
    'points': 'LiDAR points counted: all in range (mask: points). mIoU over '
    'the 16 classes of nuScenes-lidarseg',
}


@dataclass
class ResultTable:
    """Rows that may be compared: same data, labels and mask.

    Args:
        rows: Measured rows; by family, and in it teacher, baseline, radocc.
        mask: Mask mode of the metric.
        data: Dataset, version, split and number of samples, in words.
        space: Classes and grid of the data.
        quoted: Published rows for orientation; of the same classes.
    """

    rows: List[Row]
    mask: str
    data: str
    space: LabelSpace
    quoted: List[Quoted] = field(default_factory=list)

    @property
    def scores(self) -> List[str]:
        """The columns before the classes: RayIoU only if someone has it."""
        values = [r.mean for r in self.rows] + [q.values for q in self.quoted]
        return [
            name
            for index, name in enumerate(SCORES)
            if name == 'mIoU' or not all(np.isnan(v[index]) for v in values)
        ]

    @property
    def caption(self) -> List[str]:
        """Lines that say what was measured and how, and what is quoted."""
        counted = _COUNTED[self.mask].format(self.space.free)
        lines = [
            f'Data: {self.data}. {counted}, percent; - is a '
            'class that does not occur, or a number that is not known.'
        ]
        lines += [f'Measured here: {_describe(row)}.' for row in self.rows]
        if any(len(r.values) > 1 for r in self.rows):
            lines.append(
                'Several seeds: mean ± sample standard deviation; gains over '
                'the baseline are paired by seed, in brackets the 95 % '
                't-interval of their mean.'
            )
        for row in self.rows:
            known = {name: d for name, d in row.further.items() if not np.isnan(d.mean)}
            if known:
                gains = ', '.join(f'{name} {d}' for name, d in known.items())
                lines.append(f'Further gains of {row.name}: {gains}.')
        lines += [
            f'Quoted, not measured here: {q.method}, {q.setting}: '
            f'{BENCHMARKS[q.benchmark]}; {q.source} [{q.mark}].'
            for q in self.quoted
        ]
        return lines


def build_tables(records: Sequence[dict], order: Sequence[str] = ()) -> List[ResultTable]:
    """Groups records into tables of comparable rows.

    Args:
        records: As :func:`read_records` gives them.
        order: Names of rows in the order they shall have; others follow by
            family and role.

    Returns:
        One table per evaluated data and mask mode.

    Raises:
        ValueError: If there is no record, a seed of a config occurs twice in
            a table, or a family has several baselines there.
    """
    if not records:
        raise ValueError('no records found')
    groups = defaultdict(list)
    for record in records:
        data = record['data']
        text = (
            f'{data["dataset"]} {data["version"]}, {data["split"]} split, '
            f'{data["num_samples"]} samples'
        )
        space = space_of(record)
        text += _describe_space(space)
        groups[text, record['mask'], space].append(record)
    return [
        ResultTable(_rows(group, order, space), mask, data, space)
        for (data, mask, space), group in sorted(groups.items(), key=lambda item: item[0][:2])
    ]


def _describe_space(space: LabelSpace) -> str:
    """What differs from the whole of Occ3D-nuScenes, in words."""
    text = ''
    if space.label_space != OCC3D_NUSCENES.label_space:
        text = f', labels of {space.label_space}'
    if space.point_cloud_range != space.file_range:
        low, high = space.point_cloud_range[:3], space.point_cloud_range[3:]
        text += ', cropped to ' + ', '.join(
            f'{axis} {a:g} to {b:g} m' for axis, a, b in zip('xyz', low, high)
        )
    return text


def _rows(records: Sequence[dict], order: Sequence[str], space: LabelSpace) -> List[Row]:
    rows: Dict[tuple, Row] = {}
    for record in records:
        name, config = record['name'], record['config']
        training, tta = record['training'], tuple(record.get('tta', ()))
        place = order.index(name) if name in order else len(order)
        key = (place, record['family'], ROLES.index(record['role']), name, config['hash'], tta)
        row = rows.setdefault(
            key,
            Row(
                name,
                record['role'],
                record['family'],
                config['file'],
                config['hash'],
                training['epochs'],
                training['iterations'],
                training['gpus'],
                tta,
            ),
        )
        if record['seed'] in row.values:
            raise ValueError(
                f'two records of {row.name!r} ({row.config} '
                f'{row.config_hash}) have seed {record["seed"]}; pass one of '
                'them'
            )
        row.values[record['seed']] = _values(record['metrics'], space)

    ordered = [rows[key] for key in sorted(rows)]
    for row in ordered:
        if row.role == 'radocc':
            row.delta = _delta(row, ordered, partial(_nanmean, [0]))
            if row.delta:
                for name, score in _further(space).items():
                    further = _delta(row, ordered, score)
                    if further:
                        row.further[name] = further
    return ordered


def _values(metrics: dict, space: LabelSpace) -> np.ndarray:
    per_class = metrics['per_class']
    values = [
        *map(metrics.get, SCORES),
        *map(per_class.get, space.classes[:-1]),
        *map(metrics.get, SOFT_SCORES),
    ]
    return np.array([np.nan if v is None else v for v in values], float)


def _further(space: LabelSpace) -> Dict[str, Callable[[np.ndarray], float]]:
    """What else a gain is told of, and how it is read from a row's values."""
    scores: Dict[str, Callable[[np.ndarray], float]] = {
        'IoU': partial(_nanmean, [SCORES.index('IoU')])
    }
    for group, members in space.groups.items():
        columns = [len(SCORES) + space.classes.index(name) for name in members]
        scores[group] = partial(_nanmean, columns)
    for index, name in enumerate(SOFT_SCORES):
        scores[name] = partial(_nanmean, [index - len(SOFT_SCORES)])
    return scores


def _nanmean(columns: List[int], values: np.ndarray) -> float:
    known = values[columns][~np.isnan(values[columns])]
    return float(known.mean()) if len(known) else np.nan


def _delta(row: Row, rows: Sequence[Row], score: Callable[[np.ndarray], float]) -> Optional[Delta]:
    baselines = [
        r for r in rows if r.role == 'baseline' and r.family == row.family and r.tta == row.tta
    ]
    if len(baselines) > 1:
        raise ValueError(
            f'family {row.family!r} has {len(baselines)} baselines ('
            f'{", ".join(f"{r.config} {r.config_hash}" for r in baselines)}); '
            'give each of them a family of its own'
        )
    seeds = [s for r in baselines for s in row.seeds if s in r.values]
    if not seeds:
        return None
    return Delta([score(row.values[s]) - score(baselines[0].values[s]) for s in seeds])


def _describe(row: Row) -> str:
    seeds = ', '.join(map(str, row.seeds))
    length = {None: 'epochs unknown', 1: '1 epoch'}.get(row.epochs, f'{row.epochs} epochs')
    if row.epochs is None and row.iterations is not None:
        length = f'{row.iterations} steps'
    gpus = {None: 'GPUs unknown', 0: 'CPU', 1: '1 GPU'}.get(row.gpus, f'{row.gpus} GPUs')
    tta = f', test-time augmentation {" ".join(row.tta)}' if row.tta else ''
    return (
        f'{row.name} (config {row.config} {row.config_hash}, {length}, '
        f'{gpus}, seed{"s" * (len(row.seeds) > 1)} {seeds}{tta})'
    )
