"""What metrics read from a data sample that became a dict."""
from torch import Tensor


def volume_of(sample: dict, element: str, field: str, metric: str) -> Tensor:
    """``sample.<element>.<field>``, e.g. ``pred_occ.semantics``.

    Raises:
        ValueError: Naming the metric, the field and the sample.
    """
    return _get(sample.get(element, {}), field, f'{element}.{field}', sample,
                metric)


def meta_of(sample: dict, name: str, metric: str):
    """Metainfo of the sample.

    Raises:
        ValueError: Naming the metric, the field and the sample.
    """
    return _get(sample, name, name, sample, metric)


def _get(container: dict, key: str, name: str, sample: dict, metric: str):
    if container.get(key) is None:
        raise ValueError(
            f'{metric} needs {name} of sample {sample.get("token", "?")}')
    return container[key]
