"""Frames in the order that a model needs which carries its past along."""

from typing import Iterable, Iterator, Tuple


def is_streaming(model) -> bool:
    """Whether a prediction of a model depends on the calls before it."""
    model = getattr(model, 'student', model)
    return bool(getattr(model, 'is_streaming', False))


def with_history(dataset, frames: Iterable[int]) -> Iterator[Tuple[int, bool]]:
    """Frames, each after those of its scene that come before it.

    Args:
        dataset: Dataset with ``previous``.
        frames: Indices that are asked for.

    Yields:
        Index of a frame to run, and whether it was asked for. What has just
        been run is not run again.

    Raises:
        ValueError: If the dataset lacks a frame before one.
    """
    last = None
    for frame in frames:
        past, index = [], dataset.previous(frame)
        while index is not None and index != last:
            past.append(index)
            index = dataset.previous(index)
        for index in reversed(past):
            yield index, False
        yield frame, True
        last = frame


def check_order(model, loader) -> None:
    """Raises unless a model that streams meets every frame after the last.

    Args:
        model: Any model.
        loader: Data loader of the test, whose batches are those of this
            process.

    Raises:
        ValueError: If a frame of a scene comes without the one before it.
    """
    if not is_streaming(model) or not hasattr(loader.dataset, 'previous'):
        return
    seen = set()
    for batch in loader.batch_sampler:
        for index in batch:
            previous = loader.dataset.previous(index)
            if previous is not None and previous not in seen:
                raise ValueError(
                    f'{type(model).__name__} carries its past from frame to '
                    f'frame, but sample {index} comes without sample '
                    f'{previous} before it; set test_dataloader.sampler='
                    "dict(type='radocc_plugin.SceneSampler')"
                )
            seen.add(int(index))
