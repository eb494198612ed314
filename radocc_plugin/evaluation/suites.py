"""Suites: which runs make a table, as data.

A suite is a YAML file, by default of ``configs/suites``::

    title: Occ3D-nuScenes val
    metrics: [miou, rayiou]     # of tools/test.py --metrics
    quoted: [occ3d-val]         # benchmarks of configs/published_results.yaml
    work_dir: work_dirs/NAME    # the default; suites may share trainings
    teachers: 1                 # trainings of a teacher; students share them in turn
    rows:                       # in the order of the table
    - id: bevdet-occ            # folder of its runs
      name: BEVDet-Occ          # label
      role: baseline            # teacher, baseline or radocc
      family: bevdet-occ        # whose baseline a gain is over
      config: projects/BEVDetOcc/configs/....py
      teacher: <id>             # whose checkpoint the distiller gets
      options: {a.b: 1}         # --cfg-options of training and test
      checkpoint: FILE          # test this one, train nothing
      test: [--tta]             # further arguments of tools/test.py
    - records: 'elsewhere/*/record.json'   # or: rows measured elsewhere

The run of a row with seed ``s`` lives in ``<work dir>/<id>/seed<s>``. A row
with a checkpoint runs once. So does a teacher, whom all students share; with
``teachers: 2`` it is trained with seeds 0 and 1, and students of even seeds
learn from the first, those of odd ones from the second, so that the interval
of a gain covers the teacher too. Paths are relative to the current folder;
configs also to where this package keeps its own.
"""

import glob
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Union

import yaml
from mmengine.config import Config

from radocc_plugin.config_file import find_config
from radocc_plugin.engine.checkpoint_hook import latest_checkpoint
from radocc_plugin.evaluation.records import ROLES, config_hash
from radocc_plugin.fileio import write_atomically

METRICS = ('miou', 'rayiou', 'lidarseg', 'likelihood')
_REQUIRED = ('id', 'name', 'role', 'family', 'config')
_OPTIONAL = dict(teacher=str, options=dict, checkpoint=str, test=list)


@dataclass
class SuiteRow:
    """A method of a suite; see the legend of this module."""

    id: str
    name: str
    role: str
    family: str
    config: str
    teacher: Optional[str] = None
    options: Dict[str, object] = field(default_factory=dict)
    checkpoint: Optional[str] = None
    test: List[str] = field(default_factory=list)


@dataclass
class Suite:
    """Rows to measure, and what to quote beside them."""

    name: str
    title: str
    work_dir: Path
    metrics: List[str]
    quoted: List[str]
    rows: List[SuiteRow]
    records: List[str]
    teachers: int = 1

    @property
    def names(self) -> List[str]:
        return [row.name for row in self.rows]


@dataclass
class Run:
    """One training and test of a row.

    Args:
        row: The row.
        seed: Seed of the training.
        folder: Where training and test write.
        record: Where the test writes the result, last of all.
        teacher: The run whose checkpoint the distiller gets.
    """

    row: SuiteRow
    seed: int
    folder: Path
    record: Path
    teacher: Optional['Run'] = None

    @property
    def checkpoint(self) -> str:
        """The checkpoint to test.

        Raises:
            ValueError: If the training has not written one.
        """
        if self.row.checkpoint is not None:
            return self.row.checkpoint
        latest = latest_checkpoint(self.folder)
        if latest is None:
            raise ValueError(
                f'{self.folder / "last_checkpoint"} is missing: the training '
                f'of {self.row.name!r} has not ended'
            )
        return str(latest)


def read_suite(path: Union[str, Path]) -> Suite:
    """Reads and checks a suite.

    Raises:
        ValueError: Naming the file, the row and the field.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f'{path}: cannot be read ({error})') from error
    if not isinstance(content, dict) or 'rows' not in content:
        raise ValueError(f'{path}: a suite takes title, metrics, quoted and rows')
    metrics = content.get('metrics', ['miou'])
    if not set(metrics) <= set(METRICS):
        raise ValueError(f'{path}: metrics take {METRICS}, got {metrics}')
    teachers = content.get('teachers', 1)
    if not isinstance(teachers, int) or teachers < 1:
        raise ValueError(f'{path}: teachers takes a positive number, got {teachers!r}')
    entries = content['rows']
    records = [entry['records'] for entry in entries if 'records' in entry]
    rows = [
        _row(entry, f'{path}: row {number}')
        for number, entry in enumerate(entries)
        if 'records' not in entry
    ]
    ids = [row.id for row in rows]
    for row in rows:
        if ids.count(row.id) > 1:
            raise ValueError(f'{path}: two rows have the id {row.id!r}')
        if row.teacher is not None and row.teacher not in ids:
            raise ValueError(
                f'{path}: teacher of row {row.id!r} takes one of {ids}, got {row.teacher!r}'
            )
    name = path.stem
    return Suite(
        name,
        content.get('title', name),
        Path(content.get('work_dir', f'work_dirs/{name}')),
        metrics,
        content.get('quoted', []),
        rows,
        records,
        teachers,
    )


def _row(entry: dict, where: str) -> SuiteRow:
    missing = [name for name in _REQUIRED if name not in entry]
    unknown = sorted(set(entry) - set(_REQUIRED) - set(_OPTIONAL))
    if missing or unknown:
        raise ValueError(
            f'{where}: missing {missing}, unknown {unknown}; '
            f'takes {_REQUIRED} and {tuple(_OPTIONAL)}'
        )
    if entry['role'] not in ROLES:
        raise ValueError(f'{where}: role takes one of {ROLES}, got {entry["role"]!r}')
    for name, kind in _OPTIONAL.items():
        if name in entry and not isinstance(entry[name], kind):
            raise ValueError(f'{where}: {name} takes {kind.__name__}, got {entry[name]!r}')
    return SuiteRow(**entry)


def plan_runs(suite: Suite, seeds: Sequence[int]) -> List[Run]:
    """Runs of a suite, teachers before their students.

    Those of one seed stand together, so that an interrupted suite has
    complete pairs. What runs once does so with seed 0, whatever seeds are asked
    for: seeds that are added later share it.
    """

    def seed_of(row: SuiteRow, seed: int) -> int:
        if row.checkpoint is not None:
            return 0
        return seed % suite.teachers if row.role == 'teacher' else seed

    runs: Dict[tuple, Run] = {}
    rows = {row.id: row for row in suite.rows}

    def add(row: SuiteRow, seed: int) -> Run:
        asked, seed = seed, seed_of(row, seed)
        key = row.id, seed
        if key not in runs:
            teacher = row.teacher and add(rows[row.teacher], asked)
            folder = suite.work_dir / row.id / f'seed{seed}'
            runs[key] = Run(
                row, seed, folder, folder / f'record_{suite.name}.json', teacher or None
            )
        return runs[key]

    for seed in seeds:
        for row in suite.rows:
            add(row, seed)
    return list(runs.values())


def train_arguments(run: Run, options: Sequence[str] = ()) -> List[str]:
    """Arguments of ``tools/train.py``; an interrupted run goes on.

    A config that says for which batch its learning rate is made
    (``auto_scale_lr``) is scaled to the batch that it gets.
    """
    teacher = None if run.teacher is None else run.teacher.checkpoint
    return _train_arguments(run, options, teacher)


def _train_arguments(run: Run, options: Sequence[str], teacher: Optional[str]) -> List[str]:
    scales = 'base_batch_size' in (_config(run).get('auto_scale_lr') or {})
    return [
        run.row.config,
        '--work-dir',
        str(run.folder),
        '--seed',
        str(run.seed),
        '--resume',
        *['--auto-scale-lr'] * scales,
        *_cfg_options(run, options, teacher),
    ]


def _config(run: Run) -> Config:
    return Config.fromfile(
        find_config(run.row.config, f'config of row {run.row.id!r}'), import_custom_modules=False
    )


def check_settings(run: Run, options: Sequence[str] = ()) -> None:
    """Keeps runs of other settings out of a folder that was begun before.

    Raises:
        ValueError: If its training was begun with another config or options,
            or there is no such config.
    """
    file = run.folder / 'settings.txt'
    config = _config(run)
    # The teacher by its folder: it may be trained later.
    teacher = None if run.teacher is None else str(run.teacher.folder)
    arguments = _train_arguments(run, options, teacher)
    settings = ' '.join([config_hash(config.to_dict()), *arguments])
    # the hash leaves it out, since a resumed run has another
    if config.get('load_from') is not None:
        settings += f' load_from={config.load_from}'
    if not file.is_file():
        write_atomically(file, settings)
    elif file.read_text() != settings:
        raise ValueError(
            f'{run.folder} was begun with other settings:\n  '
            f'{file.read_text()}\nnow they are:\n  {settings}\nDelete it, '
            'or pass another --work-dir'
        )


def test_arguments(run: Run, metrics: Sequence[str], options: Sequence[str] = ()) -> List[str]:
    """Arguments of ``tools/test.py``, which writes the run's record."""
    return [
        run.row.config,
        run.checkpoint,
        '--work-dir',
        str(run.folder / 'test'),
        '--train-dir',
        str(run.folder),
        '--record',
        str(run.record),
        '--name',
        run.row.name,
        '--role',
        run.row.role,
        '--family',
        run.row.family,
        '--metrics',
        *metrics,
        *run.row.test,
        *_cfg_options(run, options, None if run.teacher is None else run.teacher.checkpoint),
    ]


def _cfg_options(run: Run, options: Sequence[str], teacher: Optional[str]) -> List[str]:
    chosen = [f'{key}={value}' for key, value in run.row.options.items()]
    if teacher is not None:
        chosen.append(f'model.teacher.checkpoint={teacher}')
    chosen += options
    return ['--cfg-options', *chosen] if chosen else []


def finished_records(suite: Suite) -> List[Path]:
    """Records that the suite's rows have, of whatever seeds."""
    paths: List[Path] = []
    for row in suite.rows:
        folder = suite.work_dir / row.id
        # a test of voxels and points adds _points to the second record
        for pattern in ('', '_points'):
            paths += sorted(folder.glob(f'seed*/record_{suite.name}{pattern}.json'))
    for pattern in suite.records:
        paths += sorted(map(Path, glob.glob(pattern, recursive=True)))
    return paths
