"""Pages that compare predictions on one frame, as RGB uint8 arrays.

N cameras in the order of the data sample.
"""

from typing import Dict, Optional, Sequence

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from radocc_plugin.label_space import LabelSpace
from radocc_plugin.visualization.images import (
    DEPTH_MAP,
    check_images,
    colorize_depth,
    colorize_semantics,
    draw_cameras,
    legend,
    resize,
)
from radocc_plugin.visualization.volume import draw_occupancy
from radocc_plugin.visualization.layout import Page

# Pixels of the frame page: a volume is seen in perspective and from above.
PERSPECTIVE, ABOVE, HEIGHT = 560, 360, 360
# Width in pixels of a tile of the rendering page.
TILE = 260
GAP, HEAD, ROW_TITLE = 4, 50, 34


def frame_page(
    images: np.ndarray,
    volumes: Dict[str, np.ndarray],
    space: LabelSpace,
    *,
    cameras: Sequence[str],
    title: str = '',
    miou: Optional[Dict[str, float]] = None,
    visible: Optional[np.ndarray] = None,
    unobserved: str = 'dim',
) -> np.ndarray:
    """One frame: its cameras, and each volume in perspective and from above.

    Args:
        images: Raw camera images, RGB, shape (N, H, W, 3), uint8.
        volumes: Labels (X, Y, Z) by title, two in a row, e.g. ground truth,
            baseline, RadOcc, teacher.
        space: What the labels mean.
        cameras: Names of the N cameras.
        title: Headline.
        miou: mIoU of this frame in percent, by the titles of ``volumes``.
        visible, unobserved: See :func:`draw_occupancy`.

    Returns:
        RGB page, uint8.

    Raises:
        ValueError: If ``volumes`` is empty or ``miou`` names none of them.
    """
    if not volumes:
        raise ValueError('volumes is empty; give at least one by its title')
    miou = miou or {}
    unknown = set(miou) - set(volumes)
    if unknown:
        raise ValueError(f'miou names {sorted(unknown)}, volumes has {sorted(volumes)}')
    column_width = PERSPECTIVE + ABOVE + 4 * GAP
    width = 2 * column_width
    mosaic = draw_cameras(images, cameras, width=width)
    names = legend(space, width=width)
    rows = -(-len(volumes) // 2)
    row_height = ROW_TITLE + HEIGHT + GAP
    top = HEAD + mosaic.shape[0]
    page = Page(width, top + rows * row_height + names.shape[0] + 20)
    page.write(title, width / 2, HEAD / 2, 15, ha='center', weight='bold')
    page.paste(mosaic, 0, HEAD)
    for number, (name, labels) in enumerate(volumes.items()):
        x = number % 2 * column_width + GAP
        y = top + number // 2 * row_height
        score = f'mIoU {miou[name]:.1f}' if name in miou else ''
        page.write(name, x + 2, y + ROW_TITLE / 2, 13, weight='bold')
        page.write(score, x + PERSPECTIVE + GAP + ABOVE, y + ROW_TITLE / 2, 13, ha='right')
        options = dict(visible=visible, unobserved=unobserved)
        page.paste(
            draw_occupancy(labels, space, 'behind', size=(PERSPECTIVE, HEIGHT), **options),
            x,
            y + ROW_TITLE,
        )
        page.paste(
            draw_occupancy(labels, space, 'bev', size=(ABOVE, HEIGHT), **options),
            x + PERSPECTIVE + GAP,
            y + ROW_TITLE,
        )
    page.paste(names, 0, page.height - names.shape[0] - 8)
    return page.to_array()


def rendering_page(
    images: np.ndarray,
    depths: Dict[str, np.ndarray],
    semantics: Dict[str, np.ndarray],
    space: LabelSpace,
    *,
    cameras: Sequence[str],
    title: str = '',
    max_depth: float = 50.0,
    sparse: str = 'ground truth',
) -> np.ndarray:
    """What each camera sees of the rendered volumes: a column a camera.

    Args:
        images: Raw camera images, RGB, shape (N, H, W, 3), uint8.
        depths: Depth maps in metres (N, h, w) by title, 0 = unknown; a row
            each, e.g. ground truth, teacher, baseline, RadOcc.
        semantics: Class maps (N, h, w) by title; a row each.
        space: What the classes are.
        cameras: Names of the N cameras.
        title: Headline.
        max_depth: End of the depth colours in metres.
        sparse: Title of the depth whose returns are drawn as larger dots.

    Returns:
        RGB page, uint8.

    Raises:
        ValueError: If a map has not one image for each camera.
    """
    images = check_images(images)
    if len(images) != len(cameras):
        raise ValueError(f'images takes one for each of {tuple(cameras)}, got {len(images)}')
    rows = {'camera': images}
    for name, depth in depths.items():
        # a LiDAR return must stay visible in a small tile
        dot = max(1, 3 * depth.shape[-1] // TILE) if name == sparse else 1
        rows[f'depth\n{name}'] = colorize_depth(depth, max_depth, dot=dot)
    for name, labels in semantics.items():
        rows[f'semantics\n{name}'] = colorize_semantics(labels, space)

    left, foot = 150, 130
    tile_height = round(TILE * images.shape[1] / images.shape[2])
    width = left + len(cameras) * (TILE + GAP)
    height = HEAD + ROW_TITLE + len(rows) * (tile_height + GAP) + foot
    page = Page(width, height)
    page.write(title, width / 2, HEAD / 2, 15, ha='center', weight='bold')
    for column, camera in enumerate(cameras):
        page.write(
            camera, left + column * (TILE + GAP) + TILE / 2, HEAD + ROW_TITLE / 2, ha='center'
        )
    for row, (name, pictures) in enumerate(rows.items()):
        if pictures.ndim != 4 or len(pictures) != len(images):
            raise ValueError(
                f'{name!r} takes shape ({len(images)}, h, w), got {pictures.shape[:-1]}'
            )
        y = HEAD + ROW_TITLE + row * (tile_height + GAP)
        page.write(name, left - 10, y + tile_height / 2, ha='right')
        for column, picture in enumerate(pictures):
            page.paste(resize(picture, TILE, tile_height), left + column * (TILE + GAP), y)

    scale = page.axes(width * 0.35, height - foot + 30, width * 0.3, 10)
    page.figure.colorbar(
        ScalarMappable(Normalize(0, max_depth), DEPTH_MAP), cax=scale, orientation='horizontal'
    )
    scale.set_title('depth (m)', fontsize=9, pad=3)
    scale.tick_params(labelsize=8)
    names = legend(space, width=width)
    page.paste(names, 0, height - names.shape[0] - 8)
    return page.to_array()
