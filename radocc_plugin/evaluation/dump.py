"""Prediction dumps in the layout of Occ3D's labels."""

import io
from pathlib import Path
from typing import List, Sequence, Union

import numpy as np
import torch
from torch import Tensor

from radocc_plugin.evaluation.base import LabelSpaceMetric
from radocc_plugin.evaluation.sample_fields import meta_of, volume_of
from radocc_plugin.fileio import join_inside, write_atomically
from radocc_plugin.label_space import LabelSpace
from radocc_plugin.registry import METRICS


def prediction_path(folder: Union[str, Path], scene_name: str, token: str) -> Path:
    """``<folder>/<scene>/<token>/labels.npz``, as Occ3D lays out ``gts``.

    Raises:
        ValueError: If the names lead out of the folder.
    """
    return Path(join_inside(folder, f'{scene_name}/{token}/labels.npz', f'sample {token}'))


def write_prediction(path: Union[str, Path], semantics: Tensor) -> None:
    """Writes ``semantics`` (X, Y, Z) as compressed uint8, atomically."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, semantics=semantics.cpu().numpy().astype(np.uint8))
    write_atomically(path, buffer.getvalue())


def read_prediction(path: Union[str, Path], space: LabelSpace) -> Tensor:
    """Checked ``semantics`` of a dump, uint8, shape (X, Y, Z) of the space.

    Raises:
        ValueError: If the file is missing or corrupt, or the volume has
            another shape, type or an unknown class; names the file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            semantics = file['semantics']
    except Exception as error:  # a damaged archive raises almost anything
        raise ValueError(f'prediction {path} takes the field semantics: {error}') from error
    _check(semantics, space, path)
    return torch.from_numpy(semantics.astype(np.uint8))


def _check(semantics: np.ndarray, space: LabelSpace, path) -> None:
    if semantics.shape != space.shape or semantics.dtype.kind not in 'ui':
        raise ValueError(
            f'semantics of prediction {path} takes integers of shape '
            f'{space.shape}, got {semantics.dtype} {semantics.shape}'
        )
    if semantics.min() < 0 or semantics.max() > space.free:
        raise ValueError(
            f'semantics of prediction {path} takes classes 0 to '
            f'{space.free}, got {semantics.min()} to '
            f'{semantics.max()}'
        )


@METRICS.register_module()
class DumpPredictions(LabelSpaceMetric):
    """Writes each prediction to ``<out_dir>/<scene>/<token>/labels.npz``.

    ``tools/test.py predictions`` evaluates such a folder without a model.

    Args:
        out_dir: Folder of the dump.
        **kwargs: Arguments of BaseMetric.

    Raises:
        ValueError: If a sample lacks a field, or its prediction is not of the
            dataset's classes and grid, which readers of the dump refuse.
    """

    default_prefix = 'dump'

    def __init__(self, out_dir: str, **kwargs) -> None:
        super().__init__(**kwargs)
        self.out_dir = out_dir

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Writes the prediction of each sample."""
        for sample in data_samples:
            path = prediction_path(
                self.out_dir,
                *(meta_of(sample, name, 'DumpPredictions') for name in ('scene_name', 'token')),
            )
            semantics = volume_of(sample, 'pred_occ', 'semantics', 'DumpPredictions')
            if self.dataset_meta is not None:
                _check(semantics.cpu().numpy(), self.label_space, path)
            write_prediction(path, semantics)
            self.results.append(1)

    def compute_metrics(self, results: List[int]) -> dict:
        """``num_samples``: how many predictions were written."""
        return dict(num_samples=sum(results))
