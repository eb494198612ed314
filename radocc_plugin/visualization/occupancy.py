"""Pictures of occupancy volumes in the colours of Occ3D."""
from typing import Optional, Tuple

import numpy as np

from radocc_plugin.occ3d import FREE, PALETTE
from radocc_plugin.visualization.voxels import check_view, draw_voxels

COLORS = np.array(PALETTE, np.float32)


def draw_occupancy(semantics: np.ndarray,
                   view: str = 'behind',
                   *,
                   size: Tuple[int, int] = (800, 500),
                   visible: Optional[np.ndarray] = None,
                   unobserved: str = 'dim',
                   ego: bool = True) -> np.ndarray:
    """Draws an occupancy volume.

    Args:
        semantics: Occ3D labels on the Occ3D voxel size, shape (X, Y, Z),
            17 = free. The ego frame's origin is where Occ3D has it.
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
    if semantics.ndim != 3:
        raise ValueError('semantics takes shape (X, Y, Z), got '
                         f'{semantics.shape}')
    if semantics.min() < 0 or semantics.max() > FREE:
        raise ValueError(f'semantics takes labels 0..{FREE}, got '
                         f'{semantics.min()}..{semantics.max()}')
    check_view(view)
    if unobserved not in ('dim', 'hide'):
        raise ValueError("unobserved takes 'dim' or 'hide', got "
                         f'{unobserved!r}')
    faded = None
    if visible is not None:
        if visible.shape != semantics.shape:
            raise ValueError(f'visible has shape {visible.shape}, semantics '
                             f'{semantics.shape}')
        if unobserved == 'hide':
            semantics = np.where(visible, semantics, FREE)
        else:
            faded = ~np.asarray(visible, bool)
    return draw_voxels(
        semantics, COLORS, view, size=size, faded=faded, ego=ego)
