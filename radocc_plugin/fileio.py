"""Files from any storage, sensor files, paths; complete files or none."""

import hashlib
import io
import os
import posixpath
from pathlib import Path
from typing import Optional, Union

import numpy as np
from mmengine import fileio
from PIL import Image


def read_bytes(path: Union[str, Path], backend_args: Optional[dict] = None) -> bytes:
    """The content of a file on disk or in a storage that MMEngine knows.

    Args:
        path: A path, or an address such as ``s3://...`` or ``https://...``.
        backend_args: Of ``mmengine.fileio``, e.g. ``dict(backend='petrel')``;
            None goes by the path.

    Raises:
        Exception: Whatever the storage raises; readers name the file.
    """
    return fileio.get(str(path), backend_args=backend_args)


def expand_path(path: str) -> str:
    """A path with ``~`` and environment variables (``$X``) replaced.

    Raises:
        ValueError: If a variable is not set.
    """
    expanded = os.path.expandvars(os.path.expanduser(path))
    if '$' in expanded:
        raise ValueError(f'path {path!r} names an environment variable that is not set: {expanded}')
    return expanded


def join_inside(root: Union[str, Path], path: str, source: str) -> str:
    """A path that a file names, below a folder.

    Args:
        root: The folder; links in it may lead anywhere.
        path: Relative to it, or absolute; backslashes of Windows are taken
            for slashes.
        source: For the message: which file names it.

    Raises:
        ValueError: If it leads out of the folder.
    """
    relative = posixpath.normpath(path.replace('\\', '/'))
    if posixpath.isabs(relative):
        relative = posixpath.relpath(relative, posixpath.abspath(str(root)))
    if relative.split('/')[0] == '..':
        raise ValueError(f'{source} names {path!r}, which is not below {root}')
    return os.path.join(root, relative)


def file_hash(path: Union[str, Path]) -> str:
    """SHA-256 of a file, its first 16 digits."""
    return sha256(path)[:16]


def sha256(path: Union[str, Path]) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()


def write_atomically(
    path: Union[str, Path], data: Union[bytes, str], *, durable: bool = False
) -> None:
    """Writes a file so that no reader ever sees half of it.

    Parent folders are made. An interrupted write leaves the old file, or
    none; text is UTF-8. With ``durable`` that holds also where the whole
    machine goes down: the data are on the disk before the file has its name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # in the same folder, since a rename is atomic only in one file system
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        with open(temporary, 'wb') as file:
            file.write(data.encode() if isinstance(data, str) else data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if temporary.exists():
            temporary.unlink()


def read_image(
    path: Union[str, Path], backend_args: Optional[dict] = None, width: Optional[int] = None
) -> Image.Image:
    """An image file as RGB: its pixels as they are stored.

    The one reader of camera images. Calibrations, published pipelines and
    detectors know stored pixels, so a tag that asks viewers to turn the
    image is not followed. 16-bit grey is scaled to 8 bits, as OpenCV does.

    Args:
        path: Of the file.
        backend_args: Where it lies, see :func:`read_bytes`.
        width: A large JPEG is read at a smaller size, at least this wide,
            which is several times faster; None for the full size.

    Raises:
        ValueError: If it cannot be read, or its values have no known range;
            names the file.
    """
    try:
        with Image.open(io.BytesIO(read_bytes(path, backend_args))) as image:
            if width is not None:
                image.draft('RGB', (width, 1))
            if image.mode == 'F' or image.mode.startswith('I'):
                values = np.asarray(image)
                low, high = values.min(), values.max()
                if image.mode == 'F' or low < 0 or high >= 1 << 16:
                    raise ValueError(
                        'it takes 8 or 16 bits a channel, got '
                        f'mode {image.mode} with {low} to {high}'
                    )
                image = Image.fromarray((values // 256).astype(np.uint8))
            return image.convert('RGB')
    except Exception as error:  # a storage raises almost anything
        raise ValueError(f'{path}: image is missing or unreadable ({error})') from error


def read_lidar_file(path: str, columns: int = 5, backend_args: Optional[dict] = None) -> np.ndarray:
    """Points of a nuScenes ``.pcd.bin`` file, or of one without rings.

    The number of columns is ``columns`` if that makes sense of the file, else
    5 or 4 if that does: intensities are never negative, which coordinates in
    their place would be. (Infos are wrong at times: those of mmdet3d's tests
    say 4 of a file with 5.)

    Args:
        path: float32 values, point after point: x, y, z in the sensor frame
            (m), intensity, and, from 5 columns on, ring.
        columns: What the infos say (``num_pts_feats``).
        backend_args: Where it lies, see :func:`read_bytes`.

    Returns:
        float32, shape (P, 5): x, y, z, intensity, ring (-1 if unknown).

    Raises:
        ValueError: If the file is missing, empty, truncated, or makes no
            sense.
    """
    try:
        data = read_bytes(path, backend_args)
    except Exception as error:  # a storage raises almost anything
        raise ValueError(f'cannot read LiDAR file {path}: {error}') from error
    values = np.frombuffer(data[: len(data) // 4 * 4], np.float32)
    for count in (columns, 5, 4):
        if count >= 4 and len(data) == values.nbytes and values.size and values.size % count == 0:
            points = values.reshape(-1, count)
            if (points[:, 3] >= 0).all():
                break
    else:
        raise ValueError(
            f'LiDAR file {path} takes {columns} float32 a point, of which the '
            f'fourth, the intensity, is not negative; got {values.size} '
            'values that are no such points, nor any of 5 or 4 columns'
        )
    if count == 4:
        return np.pad(points, ((0, 0), (0, 1)), constant_values=-1)
    return points[:, :5]
