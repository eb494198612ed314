"""Colours for camera images, depth and class maps.

N cameras in the order of the data sample; pictures are RGB uint8.
"""

from pathlib import Path
from typing import Optional, Sequence, Union

import cv2
import numpy as np
from matplotlib import colormaps

from radocc_plugin.fileio import write_atomically
from radocc_plugin.label_space import LabelSpace
from radocc_plugin.visualization.layout import Page

# Unknown depth and undefined classes.
EMPTY_COLOR = (28, 31, 38)
# Free is what no surface was hit on: the sky.
SKY_COLOR = (225, 236, 246)
DEPTH_MAP = colormaps['turbo'].reversed()


def draw_cameras(
    images: np.ndarray, names: Sequence[str], *, width: int = 1200, columns: int = 3
) -> np.ndarray:
    """A mosaic of camera images with their names, in ring order.

    Args:
        images: RGB, shape (N, H, W, 3), uint8.
        names: Name of each camera.
        width: Width of the mosaic in pixels.
        columns: Images in a row: front cameras above, back cameras below.

    Raises:
        ValueError: If the shape does not fit or names are missing.
    """
    images = check_images(images)
    if len(names) != len(images):
        raise ValueError(f'names takes {len(images)} camera names, got {len(names)}')
    gap = 4
    tile_width = (width - gap * (columns - 1)) // columns
    tile_height = round(tile_width * images.shape[1] / images.shape[2])
    rows = -(-len(images) // columns)
    page = Page(width, rows * (tile_height + gap) - gap)
    for number, (image, name) in enumerate(zip(images, names)):
        x = number % columns * (tile_width + gap)
        y = number // columns * (tile_height + gap)
        page.paste(resize(image, tile_width, tile_height), x, y)
        page.write(
            name,
            x + 8,
            y + 14,
            color='white',
            bbox=dict(facecolor='black', alpha=0.6, pad=4, linewidth=0),
        )
    return page.to_array()


def depth_reach(space: LabelSpace) -> float:
    """End of the depth colours, metres: a quarter beyond the farthest side of the labels."""
    low, high = np.split(np.abs(space.point_cloud_range), 2)
    return 1.25 * float(np.maximum(low, high)[:2].max())


def colorize_depth(depth: np.ndarray, maximum: float, *, dot: int = 1) -> np.ndarray:
    """Depth in colours: near is red, far is blue, unknown is dark.

    Args:
        depth: Metres, shape (..., H, W); 0 or NaN = unknown.
        maximum: Depth of the last colour in metres; farther gets the same.
        dot: Edge length in pixels that sparse returns are grown to; the
            nearest return wins.

    Returns:
        RGB, shape (..., H, W, 3), uint8.
    """
    if maximum <= 0:
        raise ValueError(f'maximum takes a positive depth, got {maximum}')
    depth = np.nan_to_num(np.asarray(depth, np.float32))
    if dot > 1:
        depth = _grow(depth, dot)
    colors = DEPTH_MAP(np.clip(depth / maximum, 0, 1), bytes=True)[..., :3]
    return np.where(depth[..., None] > 0, colors, np.array(EMPTY_COLOR, np.uint8))


def colorize_semantics(labels: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Classes in their colours; free (no hit) in a pale sky blue.

    Args:
        labels: Labels, any shape; what is no class is drawn dark.
        space: What they mean.

    Returns:
        RGB, shape (..., 3), uint8.
    """
    labels = np.asarray(labels).astype(np.int64)
    colors = np.array((*space.palette[:-1], SKY_COLOR, EMPTY_COLOR), np.uint8)
    known = (labels >= 0) & (labels <= space.free)
    return colors[np.where(known, labels, space.num_classes)]


def legend(
    space: LabelSpace, classes: Optional[Sequence[int]] = None, *, width: int = 1200
) -> np.ndarray:
    """Swatches with class names, as many in a row as fit.

    Args:
        space: Names and colours.
        classes: Labels to show, all but free by default.
        width: Width of the picture in pixels.
    """
    classes = range(space.free) if classes is None else classes
    cell_width, cell_height = 165, 24
    columns = min(len(classes), max(1, width // cell_width))
    left = (width - columns * cell_width) // 2
    page = Page(width, -(-len(classes) // columns) * cell_height)
    for number, label in enumerate(classes):
        x = left + number % columns * cell_width
        y = number // columns * cell_height
        swatch = np.broadcast_to(np.array(space.palette[label], np.uint8), (14, 14, 3))
        page.paste(swatch, x + 4, y + 5)
        name = space.classes[label].replace('_', ' ')
        page.write(name, x + 24, y + 12, size=9)
    return page.to_array()


def save_picture(path: Union[str, Path], picture: np.ndarray) -> None:
    """Writes an RGB uint8 picture; the suffix decides the format."""
    _, data = cv2.imencode(Path(path).suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    write_atomically(path, data.tobytes())


def resize(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """A smoothly shrunk, or enlarged, picture."""
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def check_images(images: np.ndarray) -> np.ndarray:
    """Raises ValueError unless images are uint8 RGB (N, H, W, 3)."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(
            f'images takes uint8 RGB of shape (N, H, W, 3), got {images.dtype} {images.shape}'
        )
    return np.ascontiguousarray(images)


def _grow(depth: np.ndarray, dot: int) -> np.ndarray:
    """Every return as a square of ``dot`` pixels, the nearest in front."""
    kernel = np.ones((dot, dot), np.uint8)
    planes = depth.reshape(-1, *depth.shape[-2:])
    # finite, since OpenCV pads with the largest float, which is below inf
    nothing = np.finfo(np.float32).max
    far = np.where(planes > 0, planes, nothing)
    grown = np.stack([cv2.erode(plane, kernel) for plane in far])
    return np.where(grown < nothing, grown, 0).reshape(depth.shape)
