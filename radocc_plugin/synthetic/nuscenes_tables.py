"""Rows of the nuScenes v1.0 tables, and how they are written.

A row is the dictionary that stands in the JSON file; field names and units
are those of the nuScenes schema. Tokens are hashes of what they name, so that
the same settings give the same tables.
"""

import hashlib
import json
from pathlib import Path
from typing import Dict, Iterable, List, Sequence

import numpy as np

from radocc_plugin.fileio import write_atomically
from radocc_plugin.synthetic.materials import CATEGORIES

VERSION = 'v1.0-synthetic'
MAP_FILE = 'maps/synthetic.png'
# Tables that every scene adds rows to.
SCENE_TABLES = (
    'log',
    'scene',
    'sample',
    'sample_data',
    'ego_pose',
    'calibrated_sensor',
    'instance',
    'sample_annotation',
    'lidarseg',
)
ATTRIBUTES = (
    'vehicle.moving',
    'vehicle.stopped',
    'vehicle.parked',
    'cycle.with_rider',
    'cycle.without_rider',
    'pedestrian.sitting_lying_down',
    'pedestrian.standing',
    'pedestrian.moving',
)
_VISIBILITY = ('v0-40', 'v40-60', 'v60-80', 'v80-100')

Rows = Dict[str, List[dict]]


def make_token(*parts) -> str:
    """A 32-digit token, the same for the same parts."""
    return hashlib.md5('/'.join(map(str, parts)).encode()).hexdigest()


def category_token(name: str) -> str:
    return make_token('category', name)


def attribute_token(name: str) -> str:
    return make_token('attribute', name)


def sensor_token(channel: str) -> str:
    return make_token('sensor', channel)


def visibility_token(visible: float) -> str:
    """Token of the level that a visible share in [0, 1] belongs to."""
    return str(1 + int(np.searchsorted([0.4, 0.6, 0.8], visible)))


def quaternion(rotation: np.ndarray) -> List[float]:
    """(w, x, y, z) with w >= 0 of a rotation matrix (3, 3).

    It is the eigenvector to the largest eigenvalue of Bar-Itzhack's matrix,
    which holds for all rotations (J. Guidance 23(6), 2000).
    """
    r = np.asarray(rotation, np.float64)
    k = np.array([
        [np.trace(r), 0, 0, 0],
        [r[2, 1] - r[1, 2], 2 * r[0, 0] - np.trace(r), 0, 0],
        [r[0, 2] - r[2, 0], r[0, 1] + r[1, 0], 2 * r[1, 1] - np.trace(r), 0],
        [r[1, 0] - r[0, 1], r[0, 2] + r[2, 0], r[1, 2] + r[2, 1],
         2 * r[2, 2] - np.trace(r)],
    ])  # yapf: disable
    q = np.linalg.eigh(k, 'L')[1][:, -1]
    return (q if q[0] >= 0 else -q).tolist()


def pose_row(token: str, matrix: np.ndarray, **fields) -> dict:
    """A row with the translation and rotation of an ``a2b`` matrix (4, 4)."""
    return dict(
        token=token,
        translation=matrix[:3, 3].tolist(),
        rotation=quaternion(matrix[:3, :3]),
        **fields,
    )


def link(rows: Sequence[dict]) -> None:
    """Sets ``prev`` and ``next`` along a sequence of rows."""
    tokens = ['', *(row['token'] for row in rows), '']
    for index, row in enumerate(rows):
        row['prev'], row['next'] = tokens[index], tokens[index + 2]


def shared_rows(channels: Iterable[str], log_tokens: List[str]) -> Rows:
    """Rows that do not belong to one scene."""
    return dict(
        category=[
            dict(token=category_token(name), name=name, description='', index=index)
            for index, name in enumerate(CATEGORIES)
        ],
        attribute=[
            dict(token=attribute_token(name), name=name, description='') for name in ATTRIBUTES
        ],
        visibility=[
            dict(
                token=str(index + 1),
                level=level,
                description=f'visibility of whole object is {level[1:]} %',
            )
            for index, level in enumerate(_VISIBILITY)
        ],
        sensor=[
            dict(
                token=sensor_token(channel),
                channel=channel,
                modality='lidar' if 'LIDAR' in channel else 'camera',
            )
            for channel in channels
        ],
        map=[
            dict(
                token=make_token('map'),
                category='semantic_prior',
                filename=MAP_FILE,
                log_tokens=log_tokens,
            )
        ],
    )


def write_json(path: Path, content) -> None:
    """Writes a JSON file so that it is either complete or not there."""
    write_atomically(path, json.dumps(content, indent=0))
