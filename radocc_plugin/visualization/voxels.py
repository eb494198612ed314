"""Voxels of any colours in perspective and from above, without a display.

The perspective view is the painter's algorithm on visible voxel faces. In a
voxel grid that is exact: along any ray from the eye the index distance to the
eye's own cell never shrinks on any axis, so drawing voxels by decreasing
(|dx|, |dy|, |dz|) draws whatever is behind first.
"""

from typing import Optional, Tuple

import cv2
import numpy as np

from radocc_plugin.label_space import LabelSpace

BACKGROUND = np.array((244, 246, 249))
EGO_COLOR = (25, 28, 36)
# Ego body in the ego frame (origin under the rear axle), metres.
EGO_BOX = ((-1.0, -0.9, -0.4), (3.6, 0.9, 1.2))

# The LiDAR of nuScenes in its ego frame (its calibrated_sensor tables).
LIDAR_AT = (0.94, 0.0, 1.84)

# Eye and the point it looks at, ego axes, metres, for 80 m of ground; they
# come nearer to a smaller one.
VIEWS = dict(
    behind=((-58.0, 0.0, 38.0), (-2.0, 0.0, -4.0)),
    corner=((-48.0, -48.0, 42.0), (-2.0, -2.0, -5.0)),
)
FOCAL = 0.95  # focal length in image widths
VIEW_WIDTH = 80.0
# Label of an empty voxel while a volume is drawn.
EMPTY = 255
# Direction to the sun in voxels: shadows fall to the front right.
SUN = (-0.75, 0.5, 1.0)
# Light on the faces towards -x, +x, -y, +y, -z, +z.
FACE_LIGHT = np.array((0.80, 0.72, 0.66, 0.86, 0.5, 1.0), np.float32)
SHADOW = 0.72
CHECKER = 0.045  # every other voxel is a little darker, so that they show
SUPERSAMPLING = 2


def draw_voxels(
    labels: np.ndarray,
    colors: np.ndarray,
    space: LabelSpace,
    view: str = 'behind',
    *,
    size: Tuple[int, int] = (800, 500),
    faded: Optional[np.ndarray] = None,
    ego: bool = True,
) -> np.ndarray:
    """Draws a volume of labels on the grid of a label space.

    Args:
        labels: Shape (X, Y, Z), K or more is empty.
        colors: RGB of labels 0 to K - 1 in [0, 255], shape (K, 3).
        space: For place and size of the voxels.
        view: ``'behind'`` or ``'corner'`` (perspective), or ``'bev'`` (from
            straight above, forward is up).
        size: Width and height of the picture in pixels; ``'bev'`` fills it as
            far as the aspect allows.
        faded: Voxels drawn pale, bool, shape (X, Y, Z).
        ego: Whether to show the ego vehicle as a dark box.

    Returns:
        RGB picture, shape (height, width, 3), uint8.

    Raises:
        ValueError: If ``view`` is not one of the above.
    """
    check_view(view)
    vehicle = len(colors)  # one more colour: of the ego vehicle
    table = np.array((*colors, EGO_COLOR), np.float32)
    labels = np.where(labels < vehicle, labels, EMPTY).astype(np.uint8)
    faded = np.zeros(labels.shape, bool) if faded is None else faded.copy()
    if ego:
        box = ego_box(space)
        labels[box], faded[box] = vehicle, False
    labels, faded = (in_ego_axes(v, space.frame) for v in (labels, faded))
    light = _shadows(labels != EMPTY)
    if view == 'bev':
        return fit(_above(labels, table, light, faded), size)
    eye, target = _look(VIEWS[view], space)
    return _draw_perspective(labels, table, light, faded, size, eye, target)


def check_view(view: str) -> None:
    """Raises ValueError unless ``view`` is one that can be drawn."""
    if view not in (*VIEWS, 'bev'):
        raise ValueError(f'view takes one of {(*VIEWS, "bev")}, got {view!r}')


def ego_box(space: LabelSpace) -> Tuple[slice, slice, slice]:
    """The voxels of the ego vehicle, as far as they lie in the grid."""
    low, high = map(np.array, EGO_BOX)
    if space.frame == 'lidar':
        low, high = low - LIDAR_AT, high - LIDAR_AT
        # x forward, y left is y forward, -x right there
        low, high = (np.array((-high[1], low[0], low[2])), np.array((-low[1], high[0], high[2])))
    low, high = ((c - space.point_cloud_range[:3]) / space.voxel_size for c in (low, high))
    return tuple(slice(max(0, int(a)), max(0, int(b))) for a, b in zip(low, high))


def in_ego_axes(volume: np.ndarray, frame: str) -> np.ndarray:
    """A volume (X, Y, ...) with x forward and y left.

    The LiDAR of nuScenes has x to the right and y forward.
    """
    if frame == 'ego':
        return volume
    return volume.swapaxes(0, 1)[:, ::-1]


def _look(view, space: LabelSpace) -> Tuple[np.ndarray, np.ndarray]:
    """Eye and target of a view in voxels along ego axes."""
    low, high = np.reshape(space.point_cloud_range, (2, 3))
    ground = np.zeros(3)
    if space.frame == 'lidar':
        low, high = (np.array((low[1], -high[0], low[2])), np.array((high[1], -low[0], high[2])))
        ground[2] = -LIDAR_AT[2]
    ground[:2] = (low[:2] + high[:2]) / 2
    scale = max(high[:2] - low[:2]) / VIEW_WIDTH
    return tuple((scale * np.array(place) + ground - low) / space.voxel_size for place in view)


def _shadows(occupied: np.ndarray) -> np.ndarray:
    """Light that reaches the space in each voxel, shape (X, Y, Z)."""
    shadow = np.zeros_like(occupied)
    for step in range(1, occupied.shape[2]):
        dx, dy, dz = (round(step * s) for s in SUN)
        shadow |= _shifted(occupied, dx, dy, dz)
    return np.where(shadow, np.float32(SHADOW), np.float32(1))


def _shifted(volume: np.ndarray, dx: int, dy: int, dz: int) -> np.ndarray:
    """``volume[x + dx, y + dy, z + dz]``, zero outside."""
    out = np.zeros_like(volume)
    read, write = [], []
    for offset, n in zip((dx, dy, dz), volume.shape):
        read.append(slice(max(0, offset), min(n, n + offset)))
        write.append(slice(max(0, -offset), min(n, n - offset)))
    out[tuple(write)] = volume[tuple(read)]
    return out


def _openness(occupied: np.ndarray) -> np.ndarray:
    """Ambient light in each voxel: 1 in the open, less beside walls."""
    neighbours = np.stack(
        [cv2.blur(z.astype(np.float32), (3, 3)) for z in np.moveaxis(occupied, 2, 0)], axis=2
    )
    return 1 - 0.45 * neighbours


def _faces(labels: np.ndarray, eye: np.ndarray):
    """Faces that look at the eye, back to front.

    Returns:
        Voxel indices (F, 3) and face directions (F,), 0..5 for -x ... +z.
    """
    occupied = labels != EMPTY
    cell = np.floor(eye)
    index = np.indices(labels.shape, np.int16)
    voxels, directions = [], []
    for axis in range(3):
        for direction, step in ((2 * axis, -1), (2 * axis + 1, 1)):
            offset = [0, 0, 0]
            offset[axis] = step
            towards_eye = (cell[axis] - index[axis]) * step > 0
            bare = occupied & ~_shifted(occupied, *offset) & towards_eye
            found = np.argwhere(bare)
            voxels.append(found)
            directions.append(np.full(len(found), direction))
    voxels, directions = np.concatenate(voxels), np.concatenate(directions)
    distance = np.abs(voxels - cell)
    order = np.lexsort((distance[:, 2], distance[:, 1], distance[:, 0]))[::-1]
    return voxels[order], directions[order]


# Corners of each face in a unit voxel, shape (6, 4, 3).
_CORNERS = np.array(
    [
        [[0, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1]],
        [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 1]],
        [[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]],
        [[0, 1, 0], [1, 1, 0], [1, 1, 1], [0, 1, 1]],
        [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]],
        [[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]],
    ]
)
_NORMALS = np.array([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]])


def _draw_perspective(
    labels: np.ndarray,
    table: np.ndarray,
    light: np.ndarray,
    faded: np.ndarray,
    size: Tuple[int, int],
    eye: np.ndarray,
    target: np.ndarray,
) -> np.ndarray:
    voxels, directions = _faces(labels, eye)

    # the light of a face is that of the free voxel in front of it
    front = voxels + _NORMALS[directions]
    inside = ((front >= 0) & (front < labels.shape)).all(1)
    shade = FACE_LIGHT[directions]
    at = tuple(front[inside].T)
    shade[inside] *= light[at] * _openness(labels != EMPTY)[at]
    shade *= 1 - CHECKER * (voxels.sum(1) % 2)
    here = tuple(voxels.T)
    colors = table[labels[here]] * shade[:, None]
    colors = np.where(faded[here][:, None], fade(colors), colors)

    width, height = (SUPERSAMPLING * n for n in size)
    pixels, depth = _project(voxels[:, None] + _CORNERS[directions], eye, target, width, height)
    on_screen = (
        (depth > 0).all(1) & (pixels > -width).all((1, 2)) & (pixels < 2 * width).all((1, 2))
    )
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = BACKGROUND
    # sixteenths of a pixel keep distant voxels from jittering
    polygons = (pixels[on_screen] * 16).round().astype(np.int32)
    for polygon, color in zip(polygons, colors[on_screen].tolist()):
        cv2.fillConvexPoly(canvas, polygon, color, shift=4)
    return cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)


def _project(
    points: np.ndarray, eye: np.ndarray, target: np.ndarray, width: int, height: int
) -> Tuple[np.ndarray, np.ndarray]:
    """Pixels (..., 2) and depths (...) of points (..., 3)."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    local = (points - eye) @ np.stack((right, down, forward), axis=1)
    depth = local[..., 2]
    focal = FOCAL * width
    with np.errstate(divide='ignore', invalid='ignore'):
        pixels = local[..., :2] / depth[..., None] * focal
    return pixels + (width / 2, height / 2), depth


def _above(
    labels: np.ndarray, table: np.ndarray, light: np.ndarray, faded: np.ndarray
) -> np.ndarray:
    """A pixel a column (X, Y, 3): the colour of its topmost voxel."""
    occupied = labels != EMPTY
    top = labels.shape[2] - 1 - occupied[:, :, ::-1].argmax(2)
    above = np.minimum(top + 1, labels.shape[2] - 1)

    def at(volume, z):
        return np.take_along_axis(volume, z[..., None], 2)[..., 0]

    # higher is brighter, and the ground beside it shaded
    shade = (0.8 + 0.2 * top / labels.shape[2]) * at(light, above)
    shade *= at(_openness(occupied), above)
    columns = occupied.any(2)
    colors = np.zeros((*columns.shape, 3), np.float32)
    colors[columns] = table[at(labels, top)[columns]]
    colors *= shade[..., None]
    colors = np.where(at(faded, top)[..., None], fade(colors), colors)
    colors[~columns] = BACKGROUND
    return colors


def fit(columns: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
    """Colours of the columns (X, Y, 3) as a picture: forward is up.

    Args:
        columns: RGB in [0, 255] of each column.
        size: Width and height of the picture; what the aspect leaves over is
            background.
    """
    # x forward is up, y left is left
    picture = columns[::-1, ::-1].round().astype(np.uint8)
    width, height = size
    scale = min(width / picture.shape[1], height / picture.shape[0])
    grown = cv2.resize(
        picture,
        (round(picture.shape[1] * scale), round(picture.shape[0] * scale)),
        interpolation=cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA,
    )
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = BACKGROUND
    y, x = (height - grown.shape[0]) // 2, (width - grown.shape[1]) // 2
    canvas[y : y + grown.shape[0], x : x + grown.shape[1]] = grown
    return canvas


def fade(colors: np.ndarray) -> np.ndarray:
    """Colours of what was not observed."""
    return 0.22 * colors + 0.78 * BACKGROUND * 0.95
