"""Writing files that are either complete or absent."""
import os
from pathlib import Path
from typing import Union


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
