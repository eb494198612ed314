"""Masked mIoU of occupancy predictions, as an MMEngine evaluator."""
from typing import Dict, List, Optional, Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from rich.table import Table
from torch import Tensor

from radocc_plugin.evaluation.terminal import render_text
from radocc_plugin.occ3d import CLASSES, FREE, NUM_CLASSES
from radocc_plugin.registry import METRICS

MASKS = ('camera', 'lidar', 'none')
UNLABELLED = 255


def confusion_matrix(target: Tensor,
                     prediction: Tensor,
                     mask: Optional[Tensor] = None) -> Tensor:
    """Counts of (ground truth, prediction) pairs of voxels.

    Args:
        target: Ground truth labels 0..17, any shape; 255 (unlabelled) is not
            counted.
        prediction: Predicted labels 0..17, same shape.
        mask: Voxels to count, same shape; all of them if None.

    Returns:
        Counts, shape (18, 18), int64; rows are ground truth.

    Raises:
        ValueError: If shapes differ or a label is out of range.
    """
    for name, tensor in (('prediction', prediction), ('mask', mask)):
        if tensor is not None and tensor.shape != target.shape:
            raise ValueError(f'{name} has shape {tuple(tensor.shape)}, the '
                             f'ground truth {tuple(target.shape)}')
    counted = target != UNLABELLED
    if mask is not None:
        counted &= mask.bool()
    target, prediction = target[counted].long(), prediction[counted].long()
    for name, labels in (('ground truth', target), ('prediction', prediction)):
        wrong = labels[(labels < 0) | (labels >= NUM_CLASSES)]
        if len(wrong):
            raise ValueError(f'{name} takes labels 0..{NUM_CLASSES - 1}, got '
                             f'{wrong[0].item()}')
    pairs = torch.bincount(
        target * NUM_CLASSES + prediction, minlength=NUM_CLASSES**2)
    return pairs.reshape(NUM_CLASSES, NUM_CLASSES)


def scores(confusion: Tensor) -> Dict[str, float]:
    """Intersection over union in percent from a confusion matrix.

    Args:
        confusion: Counts, shape (18, 18), rows are ground truth.

    Returns:
        ``mIoU`` (mean over the non-free classes that occur in ground truth or
        prediction), ``IoU`` (occupied against free) and ``IoU_<class>`` for
        the 17 non-free classes, NaN for those that do not occur.
    """
    confusion = confusion.double()
    hits = confusion.diagonal()
    per_class = 100 * hits / (confusion.sum(0) + confusion.sum(1) - hits)
    occupied = confusion[:FREE, :FREE].sum()
    iou = 100 * occupied / (confusion.sum() - confusion[FREE, FREE])
    result = dict(mIoU=per_class[:FREE].nanmean().item(), IoU=iou.item())
    result.update((f'IoU_{name}', value)
                  for name, value in zip(CLASSES[:FREE], per_class.tolist()))
    return result


@METRICS.register_module()
class OccMetric(BaseMetric):
    """mIoU and IoU over the voxels of a mask, as Occ3D defines them.

    Each sample leaves one (18, 18) confusion matrix, so memory does not grow
    with the volume and MMEngine can drop the samples that pad uneven ranks.

    Args:
        mask: Which voxels count: those seen by a ``'camera'`` (the Occ3D
            benchmark), those seen by the ``'lidar'``, or all (``'none'``).
        **kwargs: Arguments of BaseMetric. Give each of several OccMetrics its
            own ``prefix``.

    Raises:
        ValueError: If ``mask`` is none of these, or a sample lacks a field.
    """
    default_prefix = 'occ'

    def __init__(self, mask: str = 'camera', **kwargs) -> None:
        super().__init__(**kwargs)
        if mask not in MASKS:
            raise ValueError(f'mask takes one of {MASKS}, got {mask!r}')
        self.mask = mask

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Adds the confusion matrix of each sample to ``results``.

        Args:
            data_batch: Unused.
            data_samples: OccDataSamples as dicts, with ``pred_occ`` and
                ``gt_occ``.
        """
        for sample in data_samples:
            prediction = self._field(sample, 'pred_occ', 'semantics')
            target = self._field(sample, 'gt_occ', 'semantics')
            mask = None
            if self.mask != 'none':
                mask = self._field(sample, 'gt_occ', f'mask_{self.mask}')
            self.results.append(confusion_matrix(target, prediction, mask))

    def compute_metrics(self, results: List[Tensor]) -> Dict[str, float]:
        """Scores of the summed confusion matrices; see :func:`scores`."""
        confusion = torch.zeros(NUM_CLASSES, NUM_CLASSES, dtype=torch.long)
        for matrix in results:
            confusion += matrix
        result = scores(confusion)
        print_log(self._table(result, len(results)), logger='current')
        return result

    def _table(self, result: Dict[str, float], num_samples: int) -> str:
        table = Table('class')
        table.add_column('IoU (%)', justify='right')
        for name in CLASSES[:FREE]:
            table.add_row(name, f'{result[f"IoU_{name}"]:.2f}')
        table.add_section()
        table.add_row('mIoU', f'{result["mIoU"]:.2f}')
        table.add_row('IoU (occupied)', f'{result["IoU"]:.2f}')
        return (f'Occupancy of {num_samples} samples, mask: {self.mask}\n'
                f'{render_text(table)}')

    def _field(self, sample: dict, element: str, field: str) -> Tensor:
        if field not in sample.get(element, {}):
            raise ValueError(
                f'OccMetric(mask={self.mask!r}) needs {element}.{field} of '
                f'sample {sample.get("token", "?")}')
        return sample[element][field].cpu()
