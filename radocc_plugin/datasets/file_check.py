"""Whether the files that infos name are there, before training starts."""

import os
import os.path as osp
from collections import defaultdict
from typing import Callable, Dict, List

from rich.progress import track

from radocc_plugin.datasets.label_paths import occ3d_path

_SCENES_SHOWN = 20
_FILES_SHOWN = 3


def missing_files(
    data_list: List[dict],
    root_path: str,
    progress: bool = True,
    label_path: Callable[[dict], str] = occ3d_path,
) -> Dict[str, Dict[str, str]]:
    """Files that infos name and that do not exist or are empty.

    Args:
        data_list: Infos as ``nuscenes_infos`` describes them.
        root_path: Data root.
        progress: Whether to show a progress bar.
        label_path: Where the label file of a labelled sample lies.

    Returns:
        Scene name -> path -> path and what is wrong; only scenes with such.
    """
    bad = defaultdict(dict)  # ordered, and each file once
    good = set()
    for info in track(data_list, description='Checking files', disable=not progress):
        for path in _referenced_files(info, label_path):
            if path in good:
                continue
            try:
                empty = os.stat(osp.join(root_path, path)).st_size == 0
            except OSError:
                bad[info['scene_name']][path] = path
                continue
            if empty:
                bad[info['scene_name']][path] = f'{path} (empty)'
            else:
                good.add(path)
    return bad


def check_files(
    data_list: List[dict],
    root_path: str,
    progress: bool = True,
    label_path: Callable[[dict], str] = occ3d_path,
) -> None:
    """Raises unless every file that infos name exists and is not empty.

    Args:
        data_list, root_path, progress, label_path: As in
            :func:`missing_files`.

    Raises:
        ValueError: If files are missing or empty; lists them by scene.
    """
    bad = missing_files(data_list, root_path, progress, label_path)
    if not bad:
        return
    lines = [
        f'  {scene}: {len(files)}, e.g. {", ".join(list(files.values())[:_FILES_SHOWN])}'
        for scene, files in list(bad.items())[:_SCENES_SHOWN]
    ]
    if len(bad) > _SCENES_SHOWN:
        lines.append(f'  and {len(bad) - _SCENES_SHOWN} more scenes')
    labels = {label_path(info).split('/')[0] for info in data_list if 'occ_path' in info}
    for folder in sorted(labels):
        if not osp.isdir(osp.join(root_path, folder)):
            lines.append(
                f'  There is no folder {folder}: it holds the '
                'labels, which are downloaded separately.'
            )
    if not osp.isdir(osp.join(root_path, 'samples/LIDAR_TOP')):
        lines.append('  There is no LiDAR: --camera-only makes infos without.')
    if len(bad) < len({info['scene_name'] for info in data_list}):
        lines.append('  --skip-incomplete leaves these scenes out.')
    raise ValueError(
        '\n'.join(
            [
                f'{sum(map(len, bad.values()))} files of {len(bad)} scenes are missing'
                f' or empty in {root_path}:',
                *lines,
            ]
        )
    )


def _referenced_files(info: dict, label_path: Callable[[dict], str]) -> List[str]:
    paths = [image['img_path'] for image in info['images'].values()]
    if 'lidar_path' in info['lidar_points']:
        paths.append(info['lidar_points']['lidar_path'])
    paths.extend(sweep['lidar_path'] for sweep in info['lidar_sweeps'])
    if 'occ_path' in info:
        paths.append(label_path(info))
    if 'lidarseg_path' in info:
        paths.append(info['lidarseg_path'])
    for frame in info.get('sweeps', ()):
        paths += _referenced_files(frame, label_path)
    return paths
