"""Pictures' raw material: rendered maps and camera images as arrays.

N cameras, h w render size.
"""

from pathlib import Path
from typing import Optional, Sequence, Tuple, Union

import numpy as np

from radocc_plugin.fileio import read_image
from radocc_plugin.rendering import Render

SKY = 255


def rendered_maps(render: Render) -> Tuple[np.ndarray, np.ndarray]:
    """Depth and class map of each camera of a one-sample render of all rays.

    Args:
        render: Render of all rays (``max_rays=None``).

    Returns:
        Depth in metres, 0 where a ray rather leaves the grid than ends in
        it, and the class of the largest accumulated logit, ``SKY`` there;
        shape (N, h, w) each.

    Raises:
        ValueError: If rays are missing.
    """
    rays = render.geometry.rays
    size = rays.render_size
    num_cameras = int(rays.camera.max()) + 1
    if len(rays) != num_cameras * size[0] * size[1]:
        raise ValueError(
            'render takes all rays of one sample, got '
            f'{len(rays)} of {num_cameras} cameras at {size}'
        )
    sky = render.no_hit > 0.5
    depth = render.depth_given_hit.masked_fill(sky, 0)
    classes = render.semantics.argmax(-1).masked_fill(sky, SKY)
    return tuple(values.detach().cpu().view(-1, *size).numpy() for values in (depth, classes))


def read_images(
    paths: Sequence[Union[str, Path]],
    width: Optional[int] = None,
    backend_args: Optional[dict] = None,
) -> np.ndarray:
    """RGB images, shape (N, H, W, 3), uint8.

    Args:
        paths: Image files; smaller images are black at the right and lower
            edge, as ``LoadMultiViewImages`` pads them.
        width: A large JPEG is read at a smaller size, at least this wide,
            which is several times faster; None for the full size.
        backend_args: Where they lie, see ``fileio.read_bytes``.

    Raises:
        ValueError: If an image cannot be read; names the file.
    """
    images = [np.asarray(read_image(path, backend_args, width)) for path in paths]
    size = np.max([image.shape for image in images], 0)
    padded = np.zeros((len(images), *size), np.uint8)
    for canvas, image in zip(padded, images):
        canvas[: image.shape[0], : image.shape[1]] = image
    return padded
