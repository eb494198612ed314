"""A sheet that shows all of one frame: cameras, occupancy, errors, renders.

N cameras in the order of the data sample, h w render size.
"""

from functools import lru_cache
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from radocc_plugin.evaluation import confusion_matrix, scores
from radocc_plugin.evaluation.sample_fields import mask_of
from radocc_plugin.geometry import Cameras
from radocc_plugin.label_space import UNLABELLED, LabelSpace, label_space_of
from radocc_plugin.rendering import VolumeRenderer
from radocc_plugin.structures import OccDataSample
from radocc_plugin.visualization.errors import (
    KIND_COLORS,
    KINDS,
    NOT_JUDGED_COLOR,
    count_kinds,
    draw_errors,
    error_kinds,
)
from radocc_plugin.visualization.images import DEPTH_MAP, colorize_depth, colorize_semantics, resize
from radocc_plugin.visualization.volume import draw_occupancy
from radocc_plugin.visualization.layout import Page
from radocc_plugin.visualization.rendered import read_images, rendered_maps

# Pixels: the page, its head, the row titles, and the pictures of a volume.
WIDTH, HEAD, LABELS, GAP = 1920, 56, 104, 4
COLUMN, PERSPECTIVE, ABOVE = 632, 395, 400
CARD_HEAD, LINE, FOOT = 36, 21, 20


def draw_sheet(
    sample: OccDataSample,
    *,
    renderer: Optional[VolumeRenderer] = None,
    mask: Optional[str] = None,
    title: Optional[str] = None,
    prediction: str = 'Prediction',
    max_depth: float = 50.0,
) -> np.ndarray:
    """One frame on a page.

    Above, each camera's image and what it sees of the volumes: depth and
    classes, rendered from the labels. Below, the volumes in perspective and
    from above: ground truth, prediction, errors. What the sample lacks is
    left out.

    Args:
        sample: With ``gt_occ``, ``pred_occ`` or both, and the metainfo
            ``label_space``, ``img_path``, ``cam_names``, ``cam2img``,
            ``cam2ego``, ``ori_shape``.
        renderer: Its ``render_size`` is that of the maps; a renderer of
            90 x 160 pixels by default.
        mask: Voxels that are judged, see ``LabelSpace.mask``. The others
            are pale.
        title: Headline; scene and token by default.
        prediction: What to call the prediction.
        max_depth: End of the depth colours, metres.

    Returns:
        RGB page, uint8.

    Raises:
        ValueError: If the sample lacks what is needed, or ``mask`` is not
            one of the above.
    """
    space = label_space_of(sample, 'a sheet')
    mask = space.mask(mask, 'a sheet')
    volumes, visible = _volumes(sample, mask, prediction)
    renderer = renderer or default_renderer(space.point_cloud_range)
    maps = render_volumes(renderer, sample, volumes)
    views = _view_rows(sample, maps, max_depth, space)
    names = sample.cam_names

    tile_width = (WIDTH - LABELS) // len(names) - GAP
    height, width = sample.metainfo['ori_shape'][:2]
    tile_height = round(tile_width * height / width)
    top = HEAD + CARD_HEAD + len(views) * (tile_height + GAP)
    page = Page(WIDTH, top + CARD_HEAD + PERSPECTIVE + GAP + ABOVE + FOOT)
    scene = ' · '.join(
        str(sample.get(name)) for name in ('scene_name', 'token') if sample.get(name) is not None
    )
    page.write(title or scene, 12, HEAD / 2 + 4, 16, weight='bold')
    page.paste_rows(
        names,
        [
            (name, [resize(tile, tile_width, tile_height) for tile in tiles])
            for name, tiles in views
        ],
        left=LABELS,
        top=HEAD + CARD_HEAD,
        head=CARD_HEAD,
        gap=GAP,
    )
    _draw_cards(page, top, volumes, visible, mask, max_depth, space)
    return page.to_array()


@lru_cache(maxsize=None)
def default_renderer(
    point_cloud_range: Tuple[float, ...], render_size: Tuple[int, int] = (90, 160)
) -> VolumeRenderer:
    """The renderer of pictures: every pixel of ``render_size``."""
    return VolumeRenderer(point_cloud_range, render_size)


@torch.no_grad()
def render_volumes(
    renderer: VolumeRenderer, sample: OccDataSample, volumes: Dict[str, np.ndarray]
) -> Dict[str, tuple]:
    """Depth and class maps (N, h, w) of label volumes, by their names."""
    cameras = Cameras.from_data_samples([sample])
    shape = next(iter(volumes.values())).shape
    space = label_space_of(sample, 'a sheet')
    geometry = renderer.trace_all(cameras, shape)
    return {
        name: rendered_maps(
            renderer.render_labels(
                torch.from_numpy(np.where(labels == UNLABELLED, space.free, labels))[None],
                geometry,
                space.num_classes,
            )
        )
        for name, labels in volumes.items()
    }


def _volumes(sample: OccDataSample, mask: str, prediction: str):
    """Label volumes by their titles, and the judged voxels or None."""
    if 'img_path' not in sample.metainfo:
        raise ValueError(
            'a sheet takes data samples with the metainfo '
            "'img_path'; add it to meta_keys of the packing "
            f'transform (have {sorted(sample.metainfo)})'
        )
    volumes, visible = {}, None
    if 'gt_occ' in sample:
        volumes['Ground truth'] = _labels(sample.gt_occ.semantics)
        visible = mask_of(sample, mask, f'a sheet with mask={mask!r}')
        visible = None if visible is None else visible.cpu().numpy()
    if 'pred_occ' in sample:
        volumes[prediction] = _labels(sample.pred_occ.semantics)
    if not volumes:
        raise ValueError(
            f'a sheet takes a data sample with gt_occ, pred_occ or both, got {sample.keys()}'
        )
    return volumes, visible


def _labels(semantics: torch.Tensor) -> np.ndarray:
    return semantics.detach().cpu().numpy().astype(np.uint8)


def _view_rows(
    sample: OccDataSample, maps: Dict[str, tuple], max_depth: float, space: LabelSpace
) -> List[Tuple[str, Sequence[np.ndarray]]]:
    """What each camera sees: titles, and pictures (N, h, w, 3)."""
    rows = [('camera', read_images(sample.img_path, 480, sample.get('backend_args')))]
    rows += [
        (f'depth\n{name.lower()}', colorize_depth(depth, max_depth))
        for name, (depth, _) in maps.items()
    ]
    rows += [
        (f'semantics\n{name.lower()}', colorize_semantics(classes, space))
        for name, (_, classes) in maps.items()
    ]
    return rows


def _draw_cards(
    page: Page,
    top: int,
    volumes: Dict[str, np.ndarray],
    visible: Optional[np.ndarray],
    mask: str,
    max_depth: float,
    space: LabelSpace,
) -> None:
    """Volumes and errors, a column each, with their legends."""
    columns = [0, 1, 2]
    panels = [column * (COLUMN + 12) + ABOVE + 16 for column in columns]
    for column, (name, labels) in zip(columns, volumes.items()):
        options = dict(visible=visible)
        _draw_card(
            page,
            top,
            column,
            name,
            draw_occupancy(labels, space, size=(COLUMN, PERSPECTIVE), **options),
            draw_occupancy(labels, space, 'bev', size=(ABOVE, ABOVE), **options),
        )
    y = top + CARD_HEAD + PERSPECTIVE + GAP
    _draw_scale(page, panels[0], y, max_depth)
    _draw_frame_notes(page, panels[0], y + 110, visible is not None, mask, space)
    if len(volumes) < 2:
        _draw_classes(page, panels[0] + COLUMN + 12 - ABOVE, y, {}, space)
        return
    truth, predicted = volumes.values()
    result = scores(
        confusion_matrix(
            *map(torch.from_numpy, (truth, predicted)),
            None if visible is None else torch.from_numpy(visible),
            num_classes=space.num_classes,
        ),
        space.classes,
    )
    _draw_classes(page, panels[1], y, result, space)
    kinds = error_kinds(truth, predicted, visible, free=space.free)
    _draw_card(
        page,
        top,
        2,
        'Errors',
        draw_errors(kinds, space, size=(COLUMN, PERSPECTIVE)),
        draw_errors(kinds, space, 'bev', size=(ABOVE, ABOVE), mask=visible),
    )
    _draw_kinds(page, panels[2], y, kinds, visible is not None)


def _draw_card(
    page: Page, top: int, column: int, name: str, perspective: np.ndarray, above: np.ndarray
) -> None:
    x = column * (COLUMN + 12)
    page.write(name, x + 12, top + CARD_HEAD / 2 + 2, 13, weight='bold')
    page.paste(perspective, x, top + CARD_HEAD)
    page.paste(above, x, top + CARD_HEAD + PERSPECTIVE + GAP)


def _draw_scale(page: Page, x: int, y: int, max_depth: float) -> None:
    page.write('depth (m), dark: no hit', x, y + 12, 9.5)
    scale = page.axes(x + 4, y + 28, 190, 12)
    page.figure.colorbar(
        ScalarMappable(Normalize(0, max_depth), DEPTH_MAP), cax=scale, orientation='horizontal'
    )
    scale.tick_params(labelsize=8)


def _draw_frame_notes(
    page: Page, x: int, y: int, masked: bool, mask: str, space: LabelSpace
) -> None:
    depth, width = (
        space.shape[a] * space.voxel_size for a in ((0, 1) if space.frame == 'ego' else (1, 0))
    )
    notes = [
        'ego vehicle: dark box',
        'forward is up, left is left',
        f'from above: {depth:.0f} m x {width:.0f} m',
        'depth and semantics are',
        'rendered from the labels',
    ]
    if masked:
        notes += [f'pale: outside of the {mask} mask,', 'not judged']
    for number, note in enumerate(notes):
        page.write(note, x, y + number * LINE, 9.5)


def _draw_classes(page: Page, x: int, y: int, result: Dict[str, float], space: LabelSpace) -> None:
    """The colours of the classes, with the IoU of this frame beside them."""
    right = x + 200
    if result:
        page.write('class', x, y + 12, 9.5, weight='bold')
        page.write('IoU (%)', right, y + 12, 9.5, ha='right', weight='bold')
    for label, name in enumerate(space.classes[:-1]):
        line = y + 12 + (label + 1) * LINE
        _swatch(page, x, line, space.palette[label])
        page.write(name.replace('_', ' '), x + 22, line, 9.5)
        score = result.get(f'IoU_{name}', np.nan)
        if score == score:
            page.write(f'{score:.1f}', right, line, 9.5, ha='right')
    if result:
        line = y - PERSPECTIVE - GAP - CARD_HEAD / 2 + 2
        page.write(
            f'mIoU {result["mIoU"]:.1f}   IoU {result["IoU"]:.1f}', right, line, 12, ha='right'
        )


def _draw_kinds(page: Page, x: int, y: int, kinds: np.ndarray, masked: bool) -> None:
    """The colours of the errors and how many voxels have each."""
    right = x + 200
    page.write('voxels', x, y + 12, 9.5, weight='bold')
    counts = count_kinds(kinds)
    for number, (name, count) in enumerate(zip(KINDS, counts)):
        line = y + 12 + (number + 1) * LINE
        _swatch(page, x, line, KIND_COLORS[number])
        page.write(name, x + 22, line, 9.5)
        page.write(f'{count:,}', right, line, 9.5, ha='right')
    line += LINE
    if masked:
        _swatch(page, x, line, NOT_JUDGED_COLOR)
        page.write('not judged (from above)', x + 22, line, 9.5)
    for note in (
        '',
        'missed: filled, called free',
        'hallucinated: free, called filled',
        '',
        'from above: the most frequent',
        'error of a column, stronger',
        'where more of it is wrong',
    ):
        line += LINE
        page.write(note, x, line, 9.5)


def _swatch(page: Page, x: int, y: float, color: Sequence[int]) -> None:
    page.paste(np.broadcast_to(np.array(color, np.uint8), (14, 14, 3)), x, round(y) - 7)
