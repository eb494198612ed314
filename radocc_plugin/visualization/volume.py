"""Pictures of occupancy volumes in the colours of their classes."""

from typing import Optional, Tuple

import numpy as np

from radocc_plugin.label_space import UNLABELLED, LabelSpace
from radocc_plugin.visualization.voxels import check_view, draw_voxels


def draw_occupancy(
    semantics: np.ndarray,
    space: LabelSpace,
    view: str = 'behind',
    *,
    size: Tuple[int, int] = (800, 500),
    visible: Optional[np.ndarray] = None,
    unobserved: str = 'dim',
    ego: bool = True,
) -> np.ndarray:
    """Draws an occupancy volume.

    Args:
        semantics: Labels, shape (X, Y, Z); unlabelled voxels are not drawn.
        space: What they mean, and where the voxels lie.
        view: ``'behind'`` or ``'corner'`` (perspective), or ``'bev'`` (from
            straight above, forward is up).
        size: Width and height of the picture in pixels; ``'bev'`` fills it as
            far as the aspect allows.
        visible: Observed voxels, e.g. Occ3D's camera mask, shape (X, Y, Z).
        unobserved: What to do with the others: ``'dim'`` or ``'hide'``.
        ego: Whether to show the ego vehicle as a dark box.

    Returns:
        RGB picture, shape (height, width, 3), uint8.

    Raises:
        ValueError: If an argument is not one of the above.
    """
    semantics = np.asarray(semantics)
    semantics = np.where(semantics == UNLABELLED, space.free, semantics)
    if semantics.ndim != 3:
        raise ValueError(f'semantics takes shape (X, Y, Z), got {semantics.shape}')
    if semantics.min() < 0 or semantics.max() > space.free:
        raise ValueError(
            f'semantics takes labels 0..{space.free}, got {semantics.min()}..{semantics.max()}'
        )
    check_view(view)
    if unobserved not in ('dim', 'hide'):
        raise ValueError(f"unobserved takes 'dim' or 'hide', got {unobserved!r}")
    faded = None
    if visible is not None:
        if visible.shape != semantics.shape:
            raise ValueError(f'visible has shape {visible.shape}, semantics {semantics.shape}')
        if unobserved == 'hide':
            semantics = np.where(visible, semantics, space.free)
        else:
            faded = ~np.asarray(visible, bool)
    colors = np.array(space.palette[:-1], np.float32)
    return draw_voxels(semantics, colors, space, view, size=size, faded=faded, ego=ego)
