"""What a pipeline feeds to a model, on a page.

N cameras, A adjacent frames, H W network input, h w segment maps.
"""

from typing import List, Optional, Tuple

import cv2
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from radocc_plugin.label_space import UNLABELLED, LabelSpace, label_space_of
from radocc_plugin.visualization.images import DEPTH_MAP, colorize_depth, legend, resize
from radocc_plugin.visualization.volume import draw_occupancy
from radocc_plugin.visualization.layout import INK, Page
from radocc_plugin.visualization.voxels import in_ego_axes

WIDTH, HEAD, LABELS, GAP, TITLE = 1920, 56, 104, 4, 36
PERSPECTIVE, ABOVE = (640, 400), 400
BORDER = (255, 255, 255)


def draw_pipeline_page(packed: dict, *, title: str = '', max_depth: float = 60.0) -> np.ndarray:
    """A training sample as the model gets it.

    Images with the LiDAR depth of the depth supervision and the borders of
    the segments on them, then adjacent frames, newest first; below, labels
    and points in the augmented ego frame, forward up.

    Args:
        packed: What ``PackOccInputs`` returns.
        title: Headline.
        max_depth: End of the depth colours, metres.

    Returns:
        RGB page, uint8.
    """
    inputs, sample = packed['inputs'], packed['data_samples']
    rows = _image_rows(inputs, sample, max_depth)
    names = sample.cam_names
    space = label_space_of(sample, 'draw_pipeline_page')
    tile_width = (WIDTH - LABELS) // len(names) - GAP
    height, width = inputs['img'].shape[-2:]
    tile_height = round(tile_width * height / width)
    top = HEAD + TITLE + len(rows) * (tile_height + GAP)
    classes = legend(space, width=WIDTH)
    page = Page(WIDTH, top + TITLE + ABOVE + 24 + classes.shape[0] + 12)
    page.write(title, 12, HEAD / 2 - 6, 16, weight='bold')
    page.write(describe_augmentation(sample), 12, HEAD - 8, 10)
    page.paste_rows(
        names,
        [(name, [resize(tile, tile_width, tile_height) for tile in tiles]) for name, tiles in rows],
        left=LABELS,
        top=HEAD + TITLE,
        head=TITLE,
        gap=GAP,
    )

    x = 12
    if 'gt_occ' in sample:
        _draw_labels(page, x, top, sample, space)
        x += PERSPECTIVE[0] + ABOVE + 24
    if 'points' in inputs:
        points = inputs['points'].numpy()
        page.write(f'Points: {len(points):,} (colour: age)', x, top + TITLE / 2, 13, weight='bold')
        page.paste(draw_points(points, ABOVE, space), x, top + TITLE)
        x += ABOVE + 24
    if 'gt_depth' in sample:
        _draw_scale(page, x, top + TITLE, max_depth, space)
    page.paste(classes, 0, page.height - classes.shape[0] - 8)
    return page.to_array()


def describe_augmentation(sample) -> str:
    """The augmentation of ego frame and images, in words."""
    bda_mat = np.asarray(sample.get('bda_mat', np.eye(4)))
    flip_y = np.linalg.det(bda_mat[:2, :2]) < 0
    scale = abs(np.linalg.det(bda_mat[:2, :2])) ** 0.5
    # mirrored: y -> -y after a turn, of which x -> -x is one by 180 degrees
    heading = np.degrees(np.arctan2(bda_mat[1, 0], bda_mat[0, 0]))
    parts = [
        'mirrored' if flip_y else 'not mirrored',
        f'the car heads {heading:+.1f}° from forward, to the left',
        f'scale {scale:.2f}',
    ]
    matrices = np.asarray(sample.get('img_aug_mat', ()))
    mirrored = [
        name
        for name, matrix in zip(sample.get('cam_names', ()), matrices)
        if np.linalg.det(matrix[:2, :2]) < 0
    ]
    return f'ego frame: {", ".join(parts)}.   images mirrored: {", ".join(mirrored) or "none"}'


def segments_in_input(
    segments: np.ndarray,
    img_aug_mat: np.ndarray,
    ori_shape: Tuple[int, int],
    img_shape: Tuple[int, int],
) -> np.ndarray:
    """A segment map of a raw image, moved with the image's augmentation.

    Args:
        segments: Ids, shape (h, w), over the raw image.
        img_aug_mat: Raw pixel to augmented pixel, (4, 4).
        ori_shape: Height and width of the raw image.
        img_shape: Height and width of the network input.

    Returns:
        Ids, int32, shape of ``img_shape``; 0 outside of the raw image.
    """
    rows, columns = segments.shape
    to_raw = np.diag((ori_shape[1] / columns, ori_shape[0] / rows, 1.0))
    matrix = img_aug_mat[np.ix_((0, 1, 3), (0, 1, 3))] @ to_raw
    # our pixels have their centre at + 0.5, OpenCV's at 0
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = np.linalg.inv(half) @ matrix @ half
    moved = cv2.warpAffine(
        segments.astype(np.float32), matrix[:2], img_shape[::-1], flags=cv2.INTER_NEAREST
    )
    return moved.astype(np.int32)


def draw_points(points: np.ndarray, size: int, space: LabelSpace) -> np.ndarray:
    """LiDAR points from above, forward up; the oldest sweeps are palest.

    Args:
        points: x, y, z, intensity, seconds before the keyframe, (P, 5);
            augmented ego frame, metres.
        size: Edge length of the picture in pixels.
        space: For the range.
    """
    low, high = (np.array(space.point_cloud_range[i : i + 2]) for i in (0, 3))
    picture = np.full((size, size, 3), 255, np.uint8)
    age = points[:, 4] / max(points[:, 4].max(), 1e-6)
    colors = np.array((20, 45, 110)) * (1 - age[:, None]) + np.array((190, 205, 230)) * age[:, None]
    cells = ((points[:, :2] - low) / (high - low) * size).astype(int)
    inside = ((points[:, :2] >= low) & (points[:, :2] < high)).all(1)
    order = np.argsort(-points[:, 4], kind='stable')  # newest on top
    order = order[inside[order]]
    x, y = cells[order].T
    picture[x, y] = colors[order].astype(np.uint8)
    return in_ego_axes(picture, space.frame)[::-1, ::-1]


def _image_rows(inputs: dict, sample, max_depth: float) -> List[tuple]:
    images = _images(inputs['img'])
    rows = [('camera', images)]
    for name, field, overlay in (
        ('LiDAR depth', 'gt_depth', _with_depth),
        ('segments', 'segments', _with_segments),
    ):
        if field in sample:
            rows.append(
                (
                    name,
                    [
                        overlay(image, number, sample, max_depth)
                        for number, image in enumerate(images)
                    ],
                )
            )
    timestamps = sample.get('adjacent_timestamp')
    exists = sample.get('adjacent_exists')
    for number, frame in enumerate(inputs.get('adjacent_img', ())):
        name = f'{number + 1} back'
        if timestamps is not None:
            name += f'\n-{sample.timestamp - timestamps[number]:.1f} s'
        if exists is not None and not exists[number]:
            name += '\n(repeated:\nbefore the\nscene)'
        rows.append((name, _images(frame)))
    return rows


def _images(images) -> np.ndarray:
    """(N, 3, H, W) as (N, H, W, 3)."""
    return np.ascontiguousarray(images.numpy().transpose(0, 2, 3, 1))


def _with_depth(image: np.ndarray, number: int, sample, max_depth: float) -> np.ndarray:
    """An image, dimmed, under the depth that supervises it."""
    depth = _with_size(sample.gt_depth[number].numpy(), image.shape[:2])
    dot = max(2, image.shape[1] // 200)
    dots = colorize_depth(depth, max_depth, dot=dot)
    seen = cv2.dilate((depth > 0).astype(np.uint8), np.ones((dot, dot), np.uint8)) > 0
    return np.where(seen[..., None], dots, (0.45 * image).astype(np.uint8))


def _with_segments(image: np.ndarray, number: int, sample, max_depth: float) -> np.ndarray:
    """An image, dimmed, under the borders of its segments."""
    ids = segments_in_input(
        sample.segments[number].numpy(),
        np.asarray(sample.img_aug_mat[number]),
        sample.ori_shape,
        image.shape[:2],
    )
    border = np.zeros(ids.shape, bool)
    border[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    border[1:] |= ids[1:] != ids[:-1]
    return np.where(border[..., None], np.uint8(BORDER), (0.7 * image).astype(np.uint8))


def _with_size(depth: np.ndarray, shape: Tuple[int, int]) -> np.ndarray:
    if depth.shape != tuple(shape):
        raise ValueError(f'gt_depth takes the size of the images {shape}, got {depth.shape}')
    return depth


def _draw_labels(page: Page, x: int, top: int, sample, space: LabelSpace) -> None:
    labels = sample.gt_occ.semantics.numpy()
    mask: Optional[np.ndarray] = None
    if 'mask_camera' in sample.gt_occ:
        mask = sample.gt_occ.mask_camera.numpy().astype(bool)
    unlabelled = (labels == UNLABELLED).sum()
    # the car itself may be turned or mirrored, so no box stands for it
    options = dict(visible=mask, ego=False)
    page.write('Labels (pale: outside of the camera mask)', x, top + TITLE / 2, 13, weight='bold')
    if unlabelled:
        page.write(f'{unlabelled / labels.size:.0%} without a label', x + 660, top + TITLE / 2, 11)
    page.paste(draw_occupancy(labels, space, size=PERSPECTIVE, **options), x, top + TITLE)
    above = draw_occupancy(labels, space, 'bev', size=(ABOVE, ABOVE), **options)
    page.paste(_with_heading(above, sample, space), x + PERSPECTIVE[0] + 8, top + TITLE)


def _with_heading(above: np.ndarray, sample, space: LabelSpace) -> np.ndarray:
    """An arrow from the ego origin to where the car's front is."""
    bda_mat = np.asarray(sample.get('bda_mat', np.eye(4)))
    low, high = np.reshape(space.point_cloud_range, (2, 3))[:, :2]
    forward, middle = bda_mat[:2, 0], (low + high) / 2
    if space.frame == 'lidar':
        forward, middle = ((v[1], -v[0]) for v in (bda_mat[:2, 1], middle))
    scale = above.shape[0] / max(high - low)
    # x is up, y is left
    centre = np.array(above.shape[:2]) // 2 + (np.array(middle) * scale).round().astype(int)
    tip = centre - (np.array(forward) * 8 * scale).round().astype(int)
    out = above.copy()
    cv2.arrowedLine(
        out,
        tuple(int(c) for c in centre[::-1]),
        tuple(int(t) for t in tip[::-1]),
        (25, 28, 36),
        3,
        cv2.LINE_AA,
        tipLength=0.35,
    )
    return out


def _draw_scale(page: Page, x: int, y: int, max_depth: float, space: LabelSpace) -> None:
    page.write('LiDAR depth (m)', x, y + 8, 10, color=INK)
    scale = page.axes(x + 4, y + 24, 230, 12)
    page.figure.colorbar(
        ScalarMappable(Normalize(0, max_depth), DEPTH_MAP), cax=scale, orientation='horizontal'
    )
    scale.tick_params(labelsize=8)
    for number, note in enumerate(
        (
            'arrow: where the front of the car is',
            'forward is up, left is left',
            f'from above: {space.shape[1] * space.voxel_size:.0f} m wide',
        )
    ):
        page.write(note, x, y + 80 + 21 * number, 9.5)
