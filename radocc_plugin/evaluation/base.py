"""What all metrics of occupancy share."""

from typing import List, Optional, Tuple

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from radocc_plugin.label_space import LabelSpace

_ROWS = 1024  # samples of a block


class LabelSpaceMetric(BaseMetric):
    """A metric that knows classes and grid from the dataset's metainfo.

    MMEngine's loops and ``Evaluator.dataset_meta`` set it; whoever calls a
    metric alone sets ``metric.dataset_meta``.
    """

    _known: Optional[Tuple[dict, LabelSpace]] = None
    _rows: Optional[List[np.ndarray]] = None

    @property
    def label_space(self) -> LabelSpace:
        """The label space of the evaluated dataset.

        Raises:
            ValueError: If the dataset's metainfo describes none.
        """
        if self._known is None or self._known[0] is not self.dataset_meta:
            space = LabelSpace.from_metainfo(
                self.dataset_meta, f'the dataset of {type(self).__name__}'
            )
            self._known = self.dataset_meta, space
        return self._known[1]

    def add_counts(self, counts: Tensor) -> None:
        """Appends what was counted of a sample to ``results``.

        The counts of many samples share an allocation. Each in one of its own,
        made where the volume before it had been freed, the memory of a long
        evaluation grew by a volume a sample.

        Args:
            counts: Of the same shape for every sample.
        """
        if not self._rows:
            self._rows = list(np.empty((_ROWS, *counts.shape), counts.numpy().dtype))
        row = self._rows.pop()
        row[...] = counts.numpy()
        self.results.append(row)


def total_counts(results: List[np.ndarray]) -> Tensor:
    """The sum of what ``add_counts`` kept."""
    return torch.from_numpy(np.sum(results, axis=0))
