"""From nuScenes tables and Occ3D labels to our info files."""

import json
import logging
import os
import os.path as osp
import shutil
from typing import Callable, Dict, Iterator, List, Optional, Sequence

import numpy as np
from mmengine.logging import print_log
from nuscenes import NuScenes
from nuscenes.utils.splits import create_splits_scenes
from rich.progress import Progress

from radocc_plugin.datasets.file_check import check_files, missing_files
from radocc_plugin.datasets.info_file import INFO_VERSION, load_infos, save_infos
from radocc_plugin.datasets.label_paths import LABEL_PATHS
from radocc_plugin.datasets.nuscenes_infos import can_bus_folder, scene_infos
from radocc_plugin.datasets.old_infos import DETECTION_CLASSES
from radocc_plugin.datasets.poses import MOTION
from radocc_plugin.fileio import expand_path, write_atomically

_OFFICIAL_SPLITS = {
    'v1.0-trainval': dict(train='train', val='val'),
    'v1.0-mini': dict(train='mini_train', val='mini_val'),
    'v1.0-test': dict(test='test'),
}


def convert_nuscenes(
    root_path: str,
    version: str,
    out_dir: Optional[str] = None,
    num_sweeps: int = 10,
    sweeps_per_keyframe: int = 0,
    progress: bool = True,
    overwrite: bool = False,
    camera_only: bool = False,
    skip_incomplete: bool = False,
    labels: str = 'occ3d-nuscenes',
    only: Optional[Sequence[str]] = None,
) -> List[str]:
    """Writes ``radocc_infos_<split>.pkl`` of each split of a version.

    Nothing is written unless every file that the infos name exists. Scenes
    are kept in ``<out_dir>/.radocc_infos_<version>`` until all are done, so
    an interrupted run goes on where it stopped.

    Args:
        root_path: Data root with ``<version>/``, ``samples/``, ``sweeps/`` and
            the labels.
        version: ``'v1.0-trainval'`` and ``'v1.0-mini'`` take the official
            splits, ``'v1.0-test'`` the unlabelled one, any other version
            ``<root_path>/<version>/splits.json`` with
            ``{"train": [scene names], "val": [...]}`` and, where there are
            any, ``"test": [...]``, which has labels like the others.
        out_dir: Folder of the info files; the data root by default.
        num_sweeps: Past LiDAR sweeps listed for each sample.
        sweeps_per_keyframe: Unlabelled frames between a keyframe and the
            next that its info lists, for training.
        progress: Whether to show progress bars.
        overwrite: Whether info files of another version are replaced.
        labels: Whose label files must be there, a key of ``LABEL_PATHS``; the
            info files are the same for all.
        camera_only: For a data root without LiDAR files: the infos name none,
            nor point labels.
        skip_incomplete: Whether scenes of which a file is missing are left
            out, with a warning, as long as a split has others.
        only: Splits to write; all by default.

    Returns:
        Paths of the files written.

    Raises:
        ValueError: If the tables, the splits or referenced files are missing,
            or an info file of another version is there.
    """
    root_path = expand_path(root_path)
    out_dir = expand_path(out_dir or root_path)
    if not osp.isdir(osp.join(root_path, version)):
        raise ValueError(
            f'--version {version}: no folder {osp.join(root_path, version)} with tables'
        )
    splits = _load_splits(root_path, version, only)
    can_bus = can_bus_folder(root_path)
    if not overwrite:
        for split in splits:
            _refuse_other_version(_info_path(out_dir, split), version)
    partial = osp.join(out_dir, f'.radocc_infos_{version}')
    _claim(
        partial,
        dict(
            info_version=INFO_VERSION,
            num_sweeps=num_sweeps,
            sweeps_per_keyframe=sweeps_per_keyframe,
            can_bus=can_bus is not None,
            tables=_last_change(osp.join(root_path, version)),
        ),
    )
    infos = _convert_scenes(
        root_path, version, splits, partial, progress, num_sweeps, sweeps_per_keyframe
    )
    if sweeps_per_keyframe and not any(
        info['sweeps'] for split in infos.values() for info in split
    ):
        raise ValueError(
            f'--sweeps-per-keyframe {sweeps_per_keyframe}: the tables of '
            f'{version} have no frame with a LiDAR sweep and images of all '
            'cameras between two keyframes; the synthetic world draws them '
            'with --image-sweeps'
        )
    data_list = [info for split in infos.values() for info in split]
    if can_bus is not None and not any(
        osp.isfile(osp.join(can_bus, f'{name}_pose.json'))
        for names in _all_splits(root_path, version).values()
        for name in names
    ):
        # unknown, not the zeros of single scenes without messages
        can_bus = None
        for info in _frames(data_list):
            info['can_bus'][MOTION] = np.nan
    if camera_only:
        for info in _frames(data_list):
            del info['lidar_points']['lidar_path']
            info['lidar_sweeps'] = []
            info.pop('lidarseg_path', None)
    if skip_incomplete:
        infos = _complete_scenes(infos, root_path, progress, LABEL_PATHS[labels])
    else:
        check_files(data_list, root_path, progress, LABEL_PATHS[labels])

    metainfo = dict(
        dataset='nuscenes',
        version=version,
        info_version=INFO_VERSION,
        categories={name: i for i, name in enumerate(DETECTION_CLASSES)},
    )
    paths = []
    for split, data_list in infos.items():
        for index, info in enumerate(data_list):
            info['sample_idx'] = index
        path = _info_path(out_dir, split)
        save_infos(dict(metainfo=metainfo, data_list=data_list), path)
        paths.append(path)
    shutil.rmtree(partial)
    if can_bus is None:
        print_log(
            'note: no CAN bus expansion of these scenes in '
            f'{osp.join(root_path, "can_bus")}: the infos hold poses, '
            'but no accelerations and velocities of the ego. Only '
            "BEVFormer reads them; without, set can_bus='poses' of the "
            'dataset.'
        )
    return paths


def check_nuscenes(
    root_path: str,
    version: str,
    out_dir: Optional[str] = None,
    progress: bool = True,
    labels: str = 'occ3d-nuscenes',
    only: Optional[Sequence[str]] = None,
) -> List[str]:
    """Checks the info files of a version and every file that they name.

    Args:
        root_path, version, out_dir, progress, labels: As in
            :func:`convert_nuscenes`.
        only: Splits to check; by default those that have an info file, with
            a note about the others.

    Returns:
        Paths of the info files.

    Raises:
        ValueError: If an info file is missing, unreadable or of another
            version, or names missing or empty files.
    """
    root_path = expand_path(root_path)
    paths = [
        _info_path(expand_path(out_dir or root_path), split)
        for split in _load_splits(root_path, version, only)
    ]
    absent = [path for path in paths if not osp.isfile(path)]
    if only is None and 0 < len(absent) < len(paths):
        print_log(f'note: not checked, since absent: {", ".join(absent)}')
        paths = [path for path in paths if path not in absent]
    data_list = []
    for path in paths:
        infos = load_infos(path)
        written = infos.get('metainfo', {}).get('version')
        if written != version:
            raise ValueError(f'info file {path} belongs to version {written}, asked for {version}')
        data_list += infos['data_list']
    check_files(data_list, root_path, progress, LABEL_PATHS[labels])
    return paths


def _frames(data_list: List[dict]) -> Iterator[dict]:
    """Infos of keyframes and of the frames between them."""
    for info in data_list:
        yield from (info, *info.get('sweeps', ()))


def _complete_scenes(
    infos: Dict[str, List[dict]], root_path: str, progress: bool, label_path: Callable
) -> Dict[str, List[dict]]:
    """The splits without scenes of which a file is missing."""
    complete = {}
    for split, data_list in infos.items():
        bad = missing_files(data_list, root_path, progress, label_path)
        complete[split] = [info for info in data_list if info['scene_name'] not in bad]
        if not complete[split]:
            check_files(data_list, root_path, False, label_path)
        if bad:
            print_log(
                f'{split}: {len(bad)} scenes are left out, since files of '
                f'them are missing: {", ".join(list(bad)[:20])}',
                level=logging.WARNING,
            )
    return complete


def _info_path(out_dir: str, split: str) -> str:
    return osp.join(out_dir, f'radocc_infos_{split}.pkl')


def _refuse_other_version(path: str, version: str) -> None:
    """Keeps the infos of v1.0-trainval from those of v1.0-mini."""
    if not osp.isfile(path):
        return
    try:
        metainfo = load_infos(path).get('metainfo', {})
    except ValueError:  # damaged or outdated: this run is its cure
        return
    if metainfo.get('version') != version:
        raise ValueError(
            f'info file {path} belongs to version {metainfo.get("version")}; '
            f'to put {version} in its place takes --overwrite, to keep both '
            'another --out-dir'
        )


def _load_splits(
    root_path: str, version: str, only: Optional[Sequence[str]] = None
) -> Dict[str, List[str]]:
    """Scene names of each split, or of those named."""
    splits = _all_splits(root_path, version)
    unknown = sorted(set(only or ()) - set(splits))
    if unknown:
        raise ValueError(f'--splits takes some of {list(splits)} of {version}, got {unknown}')
    return {split: splits[split] for split in only or splits}


def _all_splits(root_path: str, version: str) -> Dict[str, List[str]]:
    if version in _OFFICIAL_SPLITS:
        official = create_splits_scenes()
        return {split: official[name] for split, name in _OFFICIAL_SPLITS[version].items()}
    path = osp.join(root_path, version, 'splits.json')
    try:
        with open(path) as file:
            splits = json.load(file)
        names = ['train', 'val', *(['test'] if splits.get('test') else [])]
        return {split: list(splits[split]) for split in names}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path} takes {{"train": [scene names], "val": [...]}}, got {error!r}'
        ) from error


def _last_change(tables: str) -> float:
    return max(entry.stat().st_mtime for entry in os.scandir(tables))


def _claim(partial: str, settings: dict) -> None:
    """Empties the folder of finished scenes unless it has our settings."""
    path = osp.join(partial, 'settings.json')
    content = json.dumps(settings)
    try:
        with open(path) as file:
            if file.read() == content:
                return
    except (OSError, ValueError):
        pass
    shutil.rmtree(partial, ignore_errors=True)
    write_atomically(path, content)


def _convert_scenes(
    root_path: str,
    version: str,
    splits: Dict[str, List[str]],
    partial: str,
    progress: bool,
    num_sweeps: int,
    sweeps_per_keyframe: int,
) -> Dict[str, List[dict]]:
    """Infos of each split, from finished scenes where there are any."""
    infos = {split: [] for split in splits}
    nusc = None
    with Progress(disable=not progress) as bar:
        for split, names in splits.items():
            for name in bar.track(names, description=f'{version} {split}'):
                path = osp.join(partial, f'{name}.pkl')
                if not osp.isfile(path):
                    # tables take half a minute: none if all is done
                    nusc = nusc or _load_tables(root_path, version, splits)
                    scene = next(s for s in nusc.scene if s['name'] == name)
                    data_list = scene_infos(
                        nusc,
                        scene,
                        num_sweeps=num_sweeps,
                        sweeps_per_keyframe=sweeps_per_keyframe,
                        labelled=version != 'v1.0-test',
                    )
                    save_infos(dict(data_list=data_list), path)
                infos[split] += load_infos(path)['data_list']
    return infos


def _load_tables(root_path: str, version: str, splits: Dict[str, List[str]]) -> NuScenes:
    try:
        nusc = NuScenes(version, root_path, verbose=False)
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise ValueError(
            f'cannot read the tables in {osp.join(root_path, version)}: {error}'
        ) from error
    unknown = sorted(set().union(*splits.values()) - {scene['name'] for scene in nusc.scene})
    if unknown:
        raise ValueError(
            f'the splits of {version} name scenes that its tables'
            f' lack: {", ".join(unknown[:5])} ({len(unknown)})'
        )
    return nusc
