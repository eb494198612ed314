"""Writes a synthetic data set in the formats of nuScenes and Occ3D."""

import json
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Optional, Sequence, Union

from PIL import Image
from rich.progress import Progress

from radocc_plugin.synthetic.nuscenes_tables import (
    MAP_FILE,
    SCENE_TABLES,
    VERSION,
    shared_rows,
    write_json,
)
from radocc_plugin.synthetic.scene import (
    SPLITS,
    SceneSettings,
    SceneWriter,
    scene_name,
    scene_settings,
)
from radocc_plugin.synthetic.sensors import CAMERA_NAMES

SETTINGS_FILE = 'synthetic_settings.json'
_FINISHED_FOLDER = '.finished_scenes'
# Raise it when the same settings give another world.
_WORLD_VERSION = 3


def generate(
    root: Union[str, Path],
    *,
    scenes_train: int = 4,
    scenes_val: int = 2,
    scenes_test: int = 0,
    frames: int = 10,
    image_size: Sequence[int] = (1600, 900),
    seed: int = 0,
    sweeps: int = 1,
    image_sweeps: int = 0,
    workers: Optional[int] = None,
    progress: bool = True,
) -> None:
    """Writes the synthetic nuScenes world.

    The same settings give the same bytes, whatever ``workers`` is. A scene is
    the same however many others are drawn, and one that is finished is not
    written again: a run that was cut off goes on where it stopped, and one
    that asks for more scenes adds them. Scenes of different splits, or of
    different seeds, share nothing.

    Args:
        root: Folder of the data set; made if missing.
        scenes_train: Scenes of the train split.
        scenes_val: Scenes of the val split, to develop on.
        scenes_test: Scenes of the test split, for final numbers.
        frames: Keyframes of each scene, at 2 Hz.
        image_size: Width and height of the images in pixels.
        seed: Seed of everything; another one gives another world.
        sweeps: LiDAR sweeps between two keyframes, 0 to 9.
        image_sweeps: How many of these sweeps come with six images; evenly
            spread between the keyframes.
        workers: Scenes written at the same time; default one per CPU.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If an argument is out of range, or if ``root`` holds a
            data set of other settings.
    """
    if workers is None:
        workers = os.cpu_count() or 1
    counts = dict(train=scenes_train, val=scenes_val, test=scenes_test)
    for split, count in counts.items():
        _check(f'scenes_{split}', count, 0, 9999)
    _check('scenes_train + scenes_val + scenes_test', sum(counts.values()), 1)
    _check('frames', frames, 1, 400)
    _check('seed', seed, 0)
    _check('sweeps', sweeps, 0, 9)
    _check('image_sweeps', image_sweeps, 0, sweeps)
    _check('workers', workers, 1)
    if len(image_size) != 2:
        raise ValueError(f'image_size takes width and height, got {tuple(image_size)}')
    for name, value in zip(('width', 'height'), image_size):
        _check(f'{name} of image_size', value, 16)
    root = Path(root)
    settings = dict(
        world_version=_WORLD_VERSION,
        frames=frames,
        image_size=list(image_size),
        seed=seed,
        sweeps=sweeps,
        image_sweeps=image_sweeps,
    )
    _claim(root / SETTINGS_FILE, settings)

    splits = {
        split: [scene_name(split, index) for index in range(counts[split])] for split in SPLITS
    }
    scenes = [scene_settings(name, settings) for names in splits.values() for name in names]
    _write_scenes(root, scenes, workers, progress)
    _write_tables(root, scenes, splits)


def _check(name: str, value: int, low: int, high: Optional[int] = None):
    """Raises ValueError unless ``value`` is an integer in [low, high]."""
    takes = f'{low} to {high}' if high is not None else f'at least {low}'
    if int(value) != value or value < low or (high is not None and value > high):
        raise ValueError(f'{name} takes an integer, {takes}; got {value}')


def _claim(path: Path, settings: dict) -> None:
    """Stores the settings, or checks that the stored ones are the same."""
    if not path.exists():
        write_json(path, settings)
        return
    stored = json.loads(path.read_text())
    if stored != settings:
        changed = {
            name: (stored.get(name), value)
            for name, value in settings.items()
            if stored.get(name) != value
        }
        raise ValueError(
            f'{path} belongs to a data set of other settings (there, asked '
            f'for): {changed}; take another root or remove that folder'
        )


def _finished_file(root: Path, name: str) -> Path:
    return root / _FINISHED_FOLDER / f'{name}.json'


def _write_scene(root: Path, scene: SceneSettings) -> None:
    """Writes a scene; the file with its rows, last, says it is complete."""
    rows = SceneWriter(root, scene).write()
    write_json(_finished_file(root, scene.name), rows)


def _write_scenes(root, scenes, workers, progress) -> None:
    missing = [s for s in scenes if not _finished_file(root, s.name).exists()]
    bar = Progress(disable=not progress)
    task = bar.add_task('Scenes', total=len(scenes), completed=len(scenes) - len(missing))
    if workers == 1:
        with bar:
            for scene in missing:
                _write_scene(root, scene)
                bar.advance(task)
        return
    with ProcessPoolExecutor(workers) as pool:
        # The bar has a thread of its own: start it after the processes.
        futures = [pool.submit(_write_scene, root, s) for s in missing]
        with bar:
            for future in as_completed(futures):
                future.result()
                bar.advance(task)


def _write_tables(root, scenes, splits) -> None:
    tables = {name: [] for name in SCENE_TABLES}
    for scene in scenes:
        rows = json.loads(_finished_file(root, scene.name).read_text())
        for name, table in tables.items():
            table += rows[name]
    log_tokens = [row['token'] for row in tables['log']]
    tables.update(shared_rows((*CAMERA_NAMES, 'LIDAR_TOP'), log_tokens))
    map_file = root / MAP_FILE
    map_file.parent.mkdir(parents=True, exist_ok=True)
    Image.new('L', (32, 32), 255).save(map_file)
    for name, table in tables.items():
        write_json(root / VERSION / f'{name}.json', table)
    write_json(root / VERSION / 'splits.json', splits)
