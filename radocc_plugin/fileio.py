"""Reading files from any storage; writing complete files or none."""
import io
import os
from pathlib import Path
from typing import Optional, Union

from mmengine import fileio
from PIL import Image


def read_bytes(path: Union[str, Path],
               backend_args: Optional[dict] = None) -> bytes:
    """The content of a file on disk or in a storage that MMEngine knows.

    Args:
        path: A path, or an address such as ``s3://...`` or ``https://...``.
        backend_args: Of ``mmengine.fileio``, e.g. ``dict(backend='petrel')``;
            None goes by the path.

    Raises:
        Exception: Whatever the storage raises; readers name the file.
    """
    return fileio.get(str(path), backend_args=backend_args)


def read_image(path: Union[str, Path],
               backend_args: Optional[dict] = None,
               width: Optional[int] = None) -> Image.Image:
    """An image file as RGB.

    Args:
        path: Of the file.
        backend_args: Where it lies, see :func:`read_bytes`.
        width: A large JPEG is read at a smaller size, at least this wide,
            which is several times faster; None for the full size.

    Raises:
        ValueError: If it cannot be read; names the file.
    """
    try:
        with Image.open(io.BytesIO(read_bytes(path, backend_args))) as image:
            if width is not None:
                image.draft('RGB', (width, 1))
            return image.convert('RGB')
    except Exception as error:  # a storage raises almost anything
        raise ValueError(f'cannot read image {path}: {error}') from error


def write_atomically(path: Union[str, Path], data: Union[bytes, str]) -> None:
    """Writes a file so that no reader ever sees half of it.

    Parent folders are made. An interrupted write leaves the old file, or
    none; text is UTF-8.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # in the same folder, since a rename is atomic only in one file system
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
        os.replace(temporary, path)
    finally:
        if temporary.exists():
            temporary.unlink()
