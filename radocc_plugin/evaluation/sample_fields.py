"""What metrics read from a data sample that became a dict."""

from typing import Optional

from torch import Tensor

MASKS = ('camera', 'lidar', 'both', 'none')


def mask_of(sample: dict, mask: str, metric: str) -> Optional[Tensor]:
    """Voxels (X, Y, Z) that count, bool: seen by a camera, by the LiDAR, or
    by both; None for all (``'none'``).

    Raises:
        ValueError: Naming the metric, the field and the sample.
    """
    names = dict(none=(), both=('camera', 'lidar')).get(mask, (mask,))
    volumes = [volume_of(sample, 'gt_occ', f'mask_{name}', metric).bool() for name in names]
    if not volumes:
        return None
    return volumes[0] & volumes[-1]


def volume_of(sample: dict, element: str, field: str, metric: str) -> Tensor:
    """``sample.<element>.<field>``, e.g. ``pred_occ.semantics``.

    Raises:
        ValueError: Naming the metric, the field and the sample.
    """
    return _get(sample.get(element, {}), field, f'{element}.{field}', sample, metric)


def meta_of(sample: dict, name: str, metric: str):
    """Metainfo of the sample.

    Raises:
        ValueError: Naming the metric, the field and the sample.
    """
    return _get(sample, name, name, sample, metric)


def _get(container: dict, key: str, name: str, sample: dict, metric: str):
    value = container.get(key)
    if value is None:
        raise ValueError(f'{metric} needs {name} of sample {sample.get("token", "?")}')
    return value
