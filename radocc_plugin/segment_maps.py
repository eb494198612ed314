"""The format of segment maps: one uint16 PNG an image, 0 = no segment.

A map may be smaller than its image (segmenters work at reduced resolution);
readers scale it up by nearest neighbour. A folder of maps holds one
``manifest.json`` with the settings they were made with.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Optional, Union

import cv2
import numpy as np
from mmengine import fileio

from radocc_plugin.fileio import read_bytes, write_atomically

PathLike = Union[str, Path]
MANIFEST = 'manifest.json'
MAX_LABEL = 65535
_PNG_START, _PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'


def segment_path(segments_root: PathLike, img_path: PathLike) -> Path:
    """Where the segment map of an image lies.

    Args:
        segments_root: Folder of the segment maps.
        img_path: Image file relative to the data root, as in info files.

    Raises:
        ValueError: If ``img_path`` is absolute or leaves the data root.
    """
    relative = Path(img_path)
    if relative.is_absolute() or '..' in relative.parts:
        raise ValueError(f'img_path takes a path relative to the data root, got {img_path}')
    return Path(segments_root) / relative.with_suffix('.png')


def write_label_map(path: PathLike, labels: np.ndarray) -> None:
    """Writes segment ids, shape (h, w), integers 0..65535, 0 = no segment.

    Raises:
        ValueError: If the shape, type or range does not fit.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in 'iu':
        raise ValueError(
            f'labels takes integers of shape (h, w), got {labels.dtype} {labels.shape}'
        )
    if labels.size and not 0 <= labels.min() <= labels.max() <= MAX_LABEL:
        raise ValueError(f'labels takes ids 0..{MAX_LABEL}, got {labels.min()}..{labels.max()}')
    _, png = cv2.imencode('.png', labels.astype(np.uint16))
    write_atomically(path, png.tobytes())


def is_complete(path: PathLike) -> bool:
    """Whether a file is there and has a PNG's first and last bytes.

    Our own writes are atomic; a copy that was cut off or a full disk may
    still leave half a file. No pixel is decoded.
    """
    path = Path(path)
    if not path.is_file() or path.stat().st_size < 16:
        return False
    with path.open('rb') as file:
        start = file.read(len(_PNG_START))
        file.seek(-len(_PNG_END), os.SEEK_END)
        return start == _PNG_START and file.read() == _PNG_END


def read_label_map(path: PathLike, backend_args: Optional[dict] = None) -> np.ndarray:
    """Segment ids of an image, shape (h, w), int32, 0 = no segment.

    Args:
        path: Of the map.
        backend_args: Where it lies, see ``fileio.read_bytes``.

    Raises:
        ValueError: If the file is missing or no uint16 PNG of one channel.
    """
    if not fileio.exists(str(path), backend_args=backend_args):
        raise ValueError(
            f'{path}: no segment map here; make the maps with '
            'tools/generate_segments.py --data-root <data root> --ann-file '
            '<info file> --out <folder of the maps>'
        )
    data = np.frombuffer(read_bytes(path, backend_args), np.uint8)
    labels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if labels is None:
        raise ValueError(f'{path}: not a readable PNG; run tools/generate_segments.py again')
    if labels.ndim != 2 or labels.dtype != np.uint16:
        raise ValueError(
            f'{path}: takes a uint16 PNG of one channel, got {labels.dtype} of shape {labels.shape}'
        )
    return labels.astype(np.int32)


def settings_hash(settings: dict) -> str:
    """Short hash of segmenter settings."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_manifest(segments_root: PathLike) -> dict:
    """The manifest of a folder: ``settings`` and their ``hash``.

    Raises:
        ValueError: If it is missing or unreadable.
    """
    path = Path(segments_root) / MANIFEST
    if not path.is_file():
        raise ValueError(
            f'{path}: missing, so the settings of these segment '
            'maps are unknown; run tools/generate_segments.py'
        )
    try:
        manifest = json.loads(path.read_text())
        settings, digest = manifest['settings'], manifest['hash']
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{path}: takes JSON with the fields settings and hash ({error!r})'
        ) from error
    if settings_hash(settings) != digest:
        raise ValueError(
            f'{path}: hash {digest} does not belong to the settings; the file was edited'
        )
    return manifest


def ensure_manifest(segments_root: PathLike, settings: dict) -> None:
    """Writes the manifest of a folder, or checks the one that is there.

    Args:
        segments_root: Folder of the segment maps.
        settings: Everything that decides the maps; plain JSON values.

    Raises:
        ValueError: If the folder holds maps of other settings, or maps
            without a manifest.
    """
    root = Path(segments_root)
    if not (root / MANIFEST).exists():
        if next(root.rglob('*.png'), None):
            raise ValueError(f'{root} holds segment maps without a {MANIFEST}; use an empty folder')
        manifest = dict(hash=settings_hash(settings), settings=settings)
        write_atomically(root / MANIFEST, json.dumps(manifest, indent=2))
        return
    found = read_manifest(root)['settings']
    if found != settings:
        changed = [
            f'{key}: {found.get(key)!r} there, {settings.get(key)!r} asked'
            for key in sorted({*found, *settings})
            if found.get(key) != settings.get(key)
        ]
        raise ValueError(
            f'{root} holds segment maps of other settings '
            f'({"; ".join(changed)}); use another folder'
        )
