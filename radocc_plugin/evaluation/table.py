"""From result records to the rows of a comparison table."""
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Union

import numpy as np
import yaml

from radocc_plugin.evaluation.records import ROLES
from radocc_plugin.occ3d import CLASSES, FREE

COLUMNS = CLASSES[:FREE]


@dataclass
class Delta:
    """Difference of mIoU to the baseline, over the seeds both have.

    Args:
        mean: Mean of the paired differences, percentage points.
        std: Their sample standard deviation; None with one seed.
    """
    mean: float
    std: Optional[float]

    @property
    def verdict(self) -> str:
        if self.std is None:
            return 'one seed: noise unknown'
        return 'within noise' if abs(self.mean) < self.std else ''


@dataclass
class Row:
    """One method: the runs of one config with several seeds.

    Args:
        name: Label.
        values: Percent, by seed: mIoU, IoU and the 17 classes, shape (19,);
            NaN for absent classes.
        config: Config file name and hash.
        epochs: Epochs of the training, None if unknown.
        role: 'teacher', 'baseline' or 'radocc'.
        delta: To the baseline of the family; None for other roles, or where
            no seed is shared.
    """
    name: str
    role: str
    family: str
    config: str
    epochs: Optional[int]
    values: Dict[int, np.ndarray] = field(default_factory=dict)
    delta: Optional[Delta] = None

    @property
    def seeds(self) -> List[int]:
        return sorted(self.values)

    @property
    def mean(self) -> np.ndarray:
        """Mean over seeds; NaN for a class that one of them lacks."""
        return np.mean(list(self.values.values()), axis=0)

    @property
    def std(self) -> Optional[np.ndarray]:
        """Sample standard deviation over seeds; None with one seed."""
        if len(self.values) < 2:
            return None
        return np.std(list(self.values.values()), axis=0, ddof=1)


@dataclass
class Quoted:
    """A published result that was not measured here.

    Args:
        method: Label.
        setting: Modality and backbone.
        values: Percent: mIoU, IoU and the 17 classes, shape (19,); NaN where
            the source gives no number.
        source: Where it was read.
        mark: How sure the number is, e.g. 'confirmed'.
    """
    method: str
    setting: str
    values: np.ndarray
    source: str
    mark: str

    @property
    def has_classes(self) -> bool:
        return not np.isnan(self.values[2:]).all()


@dataclass
class ResultTable:
    """Rows that may be compared: same data, same mask.

    Args:
        rows: Measured rows; by family, and in it teacher, baseline, radocc.
        mask: Mask mode of the metric.
        data: Dataset, version, split and number of samples, in words.
        quoted: Published rows for orientation.
    """
    rows: List[Row]
    mask: str
    data: str
    quoted: List[Quoted] = field(default_factory=list)

    @property
    def caption(self) -> List[str]:
        """Lines that say what was measured and how, and what is quoted."""
        counted = 'all' if self.mask == 'none' else f'{self.mask} mask'
        lines = [
            f'Data: {self.data}. Voxels counted: {counted} (mask: {self.mask})'
            '. mIoU over the 17 non-free classes, percent; - is a class that '
            'does not occur.'
        ]
        lines += [f'Measured here: {_describe(row)}.' for row in self.rows]
        if any(len(r.values) > 1 for r in self.rows):
            lines.append('Several seeds: mean ± sample standard deviation; '
                         'deltas are paired by seed.')
        lines += [
            f'Quoted, not measured here: {q.method}, {q.setting}: Occ3D-'
            f'nuScenes val, camera mask; {q.source} [{q.mark}].'
            for q in self.quoted
        ]
        return lines


def build_tables(records: Sequence[dict]) -> List[ResultTable]:
    """Groups records into tables of comparable rows.

    Args:
        records: As :func:`read_records` gives them.

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
        text = (f'{data["dataset"]} {data["version"]}, {data["split"]} split, '
                f'{data["num_samples"]} samples')
        groups[text, record['mask']].append(record)
    return [
        ResultTable(_rows(group), mask, data)
        for (data, mask), group in sorted(groups.items())
    ]


def read_quoted(path: Union[str, Path]) -> List[Quoted]:
    """Published rows from a YAML list.

    Each entry has ``method``, ``setting``, ``mIoU``, ``source``, ``mark``, and
    optionally ``per_class``: 17 numbers in Occ3D order.

    Raises:
        ValueError: Naming the file, the entry and the field.
    """
    entries = yaml.safe_load(Path(path).read_text())
    quoted = []
    for number, entry in enumerate(entries):
        missing = {'method', 'setting', 'mIoU', 'source', 'mark'} - set(entry)
        if missing:
            raise ValueError(f'{path}: entry {number} lacks {sorted(missing)}')
        per_class = entry.get('per_class', [np.nan] * len(COLUMNS))
        if len(per_class) != len(COLUMNS):
            raise ValueError(
                f'{path}: per_class of entry {number} ({entry["method"]}) '
                f'takes {len(COLUMNS)} numbers, got {len(per_class)}')
        values = np.array([entry['mIoU'], np.nan, *per_class], float)
        quoted.append(
            Quoted(entry['method'], entry['setting'], values, entry['source'],
                   entry['mark']))
    return quoted


def _rows(records: Sequence[dict]) -> List[Row]:
    rows: Dict[tuple, Row] = {}
    for record in records:
        config = record['config']
        key = (record['family'], ROLES.index(record['role']), record['name'],
               config['hash'])
        row = rows.setdefault(
            key,
            Row(record['name'], record['role'], record['family'],
                f'{config["file"]} {config["hash"]}',
                record['training']['epochs']))
        if record['seed'] in row.values:
            raise ValueError(
                f'two records of {row.name!r} ({row.config}) have seed '
                f'{record["seed"]}; pass one of them')
        row.values[record['seed']] = _values(record['metrics'])

    ordered = [rows[key] for key in sorted(rows)]
    for row in ordered:
        if row.role == 'radocc':
            row.delta = _delta(row, ordered)
    return ordered


def _values(metrics: dict) -> np.ndarray:
    per_class = metrics['per_class']
    values = [metrics['mIoU'], metrics['IoU'], *map(per_class.get, COLUMNS)]
    return np.array([np.nan if v is None else v for v in values], float)


def _delta(row: Row, rows: Sequence[Row]) -> Optional[Delta]:
    baselines = [
        r for r in rows if r.role == 'baseline' and r.family == row.family
    ]
    if len(baselines) > 1:
        raise ValueError(
            f'family {row.family!r} has {len(baselines)} baselines ('
            f'{", ".join(r.config for r in baselines)}); give each of them a '
            'family of its own')
    seeds = [s for r in baselines for s in row.seeds if s in r.values]
    if not seeds:
        return None
    differences = [row.values[s][0] - baselines[0].values[s][0] for s in seeds]
    std = float(np.std(differences, ddof=1)) if len(seeds) > 1 else None
    return Delta(float(np.mean(differences)), std)


def _describe(row: Row) -> str:
    seeds = ', '.join(map(str, row.seeds))
    epochs = 'epochs unknown' if row.epochs is None else f'{row.epochs} epochs'
    return (f'{row.name} (config {row.config}, {epochs}, '
            f'seed{"s" * (len(row.seeds) > 1)} {seeds})')
