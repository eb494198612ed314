"""Published results that tables quote beside measured ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Union

import numpy as np
import yaml

from radocc_plugin.occ3d import CLASSES, FREE

# What the values of a row are, in order: these scores and the 17 classes.
SCORES = ('mIoU', 'IoU', 'RayIoU')
COLUMNS = CLASSES[:FREE]
# What published numbers were measured on.
BENCHMARKS = {
    'occ3d-val': 'Occ3D-nuScenes val, camera mask',
    'occ3d-val-rays': 'Occ3D-nuScenes val, RayIoU, trained without mask',
    'occ3d-test': 'Occ3D-nuScenes test server, camera mask',
    'lidarseg-test': 'nuScenes-lidarseg test server',
    'radocc-paper': 'RadOcc (arXiv 2312.11829), Occ3D-nuScenes val',
}


@dataclass
class Quoted:
    """A published result that was not measured here.

    Args:
        method: Label.
        setting: Modality and backbone.
        benchmark: Data and mask, a key of ``BENCHMARKS``.
        values: Percent: mIoU, IoU, RayIoU and the 17 classes, shape (20,);
            NaN where the source gives no number.
        source: Where it was read.
        mark: How sure the number is, e.g. 'confirmed'.
    """

    method: str
    setting: str
    benchmark: str
    values: np.ndarray
    source: str
    mark: str

    @property
    def has_classes(self) -> bool:
        return not np.isnan(self.classes).all()

    @property
    def classes(self) -> np.ndarray:
        return self.values[len(SCORES) :]


def read_quoted(path: Union[str, Path], benchmark: Optional[str] = None) -> List[Quoted]:
    """Published rows from a YAML list, of one benchmark or all.

    Each entry has ``benchmark``, ``method``, ``setting``, ``source``,
    ``mark``, ``mIoU`` or ``RayIoU`` or both, and optionally ``per_class``: 17
    numbers in Occ3D order.

    Raises:
        ValueError: Naming the file, the entry and the field.
    """
    entries = yaml.safe_load(Path(path).read_text())
    quoted = []
    for number, entry in enumerate(entries):
        missing = {'benchmark', 'method', 'setting', 'source', 'mark'} - set(entry)
        if not {'mIoU', 'RayIoU'} & set(entry):
            missing.add('mIoU')
        if missing:
            raise ValueError(f'{path}: entry {number} lacks {sorted(missing)}')
        if entry['benchmark'] not in BENCHMARKS:
            raise ValueError(
                f'{path}: benchmark of entry {number} ({entry["method"]}) '
                f'takes one of {sorted(BENCHMARKS)}, got '
                f'{entry["benchmark"]!r}'
            )
        per_class = entry.get('per_class', [np.nan] * len(COLUMNS))
        if len(per_class) != len(COLUMNS):
            raise ValueError(
                f'{path}: per_class of entry {number} ({entry["method"]}) '
                f'takes {len(COLUMNS)} numbers, got {len(per_class)}'
            )
        if benchmark in (None, entry['benchmark']):
            scores = [entry.get(name, np.nan) for name in SCORES]
            quoted.append(
                Quoted(
                    entry['method'],
                    entry['setting'],
                    entry['benchmark'],
                    np.array([*scores, *per_class], float),
                    entry['source'],
                    entry['mark'],
                )
            )
    return quoted
