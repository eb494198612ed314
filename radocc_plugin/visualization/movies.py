"""Moving pictures: GIF with Pillow, MP4 with OpenCV."""

import os
from contextlib import contextmanager
from pathlib import Path
from typing import Iterable, Iterator, Union

import cv2
import numpy as np
from PIL import Image

from radocc_plugin.visualization.images import resize

SUFFIXES = ('.gif', '.mp4')


def write_movie(
    path: Union[str, Path], pictures: Iterable[np.ndarray], *, fps: float = 2.0, width: int = 1280
) -> int:
    """Writes a GIF or MP4, whose file is complete or absent.

    Pictures are written as they come; none is kept.

    Args:
        path: File; its suffix, ``.gif`` or ``.mp4``, decides the format.
        pictures: RGB, shape (H, W, 3), uint8, of one size.
        fps: Pictures a second; nuScenes' keyframes are 2 a second.
        width: Width of the movie in pixels, made even.

    Returns:
        The number of pictures.

    Raises:
        ValueError: If the suffix is another, or there is no picture.
        RuntimeError: If OpenCV cannot write MP4.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f'path takes a suffix of {SUFFIXES}, got {path}')
    small = (_shrink(picture, width) for picture in pictures)
    first = next(small, None)
    if first is None:
        raise ValueError(f'pictures is empty, nothing to write to {path}')
    count = 1

    def counted() -> Iterator[np.ndarray]:
        nonlocal count
        for picture in small:
            count += 1
            yield picture

    write = _write_gif if path.suffix == '.gif' else _write_mp4
    with renamed_when_done(path) as temporary:
        write(temporary, first, counted(), fps)
    return count


@contextmanager
def renamed_when_done(path: Union[str, Path]) -> Iterator[Path]:
    """A file beside ``path`` of the same suffix, which becomes ``path`` when
    the context ends without an error, and is gone otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.stem}.{os.getpid()}{path.suffix}')
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _shrink(picture: np.ndarray, width: int) -> np.ndarray:
    width = min(width, picture.shape[1]) // 2 * 2
    height = round(picture.shape[0] * width / picture.shape[1]) // 2 * 2
    return resize(picture, width, height)


def _write_gif(path: Path, first: np.ndarray, rest: Iterator[np.ndarray], fps: float) -> None:
    def indexed(picture: np.ndarray) -> Image.Image:
        # without dithering flat class colours stay flat, and files small
        return Image.fromarray(picture).quantize(256, dither=Image.Dither.NONE)

    indexed(first).save(
        path,
        save_all=True,
        append_images=(indexed(picture) for picture in rest),
        duration=round(1000 / fps),
        loop=0,
    )


def _write_mp4(path: Path, first: np.ndarray, rest: Iterator[np.ndarray], fps: float) -> None:
    height, width = first.shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), fps, (width, height))
    if not writer.isOpened():
        raise RuntimeError(
            'OpenCV was built without an MP4 encoder; write a .gif, or install opencv-python'
        )
    try:
        writer.write(first[..., ::-1])
        for picture in rest:
            writer.write(picture[..., ::-1])
    finally:
        writer.release()
