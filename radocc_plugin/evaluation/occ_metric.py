"""Masked mIoU of occupancy predictions, as an MMEngine evaluator."""

from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.logging import print_log
from rich.table import Table
from torch import Tensor

from radocc_plugin.evaluation.base import LabelSpaceMetric, total_counts
from radocc_plugin.evaluation.sample_fields import MASKS, mask_of, volume_of
from radocc_plugin.evaluation.terminal import render_text
from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.registry import METRICS

RING_AT = ('centre', 'corner')


def confusion_matrix(
    target: Tensor, prediction: Tensor, mask: Optional[Tensor] = None, *, num_classes: int
) -> Tensor:
    """Counts of (ground truth, prediction) pairs of voxels.

    Args:
        target: Ground truth labels, any shape; 255 (unlabelled) is not
            counted.
        prediction: Predicted labels, same shape.
        mask: Voxels to count, same shape; all of them if None.
        num_classes: Classes C, free space last.

    Returns:
        Counts, shape (C, C), int64; rows are ground truth.

    Raises:
        ValueError: If shapes differ or a label is out of range.
    """
    for name, tensor in (('prediction', prediction), ('mask', mask)):
        if tensor is not None and tensor.shape != target.shape:
            raise ValueError(
                f'{name} has shape {tuple(tensor.shape)}, the ground truth {tuple(target.shape)}'
            )
    # numba takes a second to import: who does not count does not wait
    from radocc_plugin.evaluation.pair_counts import count_pairs

    truth, predicted = (
        _flat_labels(name, tensor)
        for name, tensor in (('ground_truth', target), ('prediction', prediction))
    )
    if mask is None:
        counted = np.ones(truth.shape, bool)
    else:
        counted = mask.detach().cpu().numpy().reshape(-1)
        counted = counted.astype(bool, copy=False)
    pairs, wrong = count_pairs(truth, predicted, counted, num_classes)
    if wrong >= 0:
        name, value = 'ground_truth', truth[wrong]
        if 0 <= value < num_classes:
            name, value = 'prediction', predicted[wrong]
        raise ValueError(f'{name} takes labels 0..{num_classes - 1}, got {value}')
    return torch.from_numpy(pairs)


def _flat_labels(name: str, labels: Tensor) -> np.ndarray:
    if labels.dtype == torch.bool or labels.is_floating_point():
        raise ValueError(f'{name} takes integer labels, got {labels.dtype}')
    return labels.detach().cpu().numpy().reshape(-1)


def ring_mask(
    shape: Sequence[int],
    point_cloud_range: Sequence[float],
    ring: Tuple[float, float],
    ring_at: str = 'centre',
) -> Tensor:
    """Voxels whose horizontal distance from the ego origin is in a range.

    Args:
        shape: Number of voxels (X, Y, Z).
        point_cloud_range: Extent of the volume in metres.
        ring: Smallest and largest distance that counts, metres.
        ring_at: Which point of a voxel is measured: its ``'centre'``, or its
            lower ``'corner'`` as FB-OCC does.

    Returns:
        Bool, shape (X, Y, Z).
    """
    grid = VoxelGrid(tuple(point_cloud_range), tuple(shape))
    points = grid.centres(dtype=torch.float64)[..., :2]
    if ring_at == 'corner':
        points = points - 0.5 * points.new_tensor(grid.voxel_size[:2])
    # bounds on a plane between voxels are not exact in floating point
    distance = points.norm(dim=-1).reshape(tuple(shape))
    return (distance >= ring[0] - 1e-6) & (distance <= ring[1] + 1e-6)


def scores(
    confusion: Tensor, classes: Sequence[str], groups: Optional[Mapping[str, Sequence[str]]] = None
) -> Dict[str, float]:
    """Intersection over union in percent from a confusion matrix.

    Args:
        confusion: Counts, shape (C, C), rows are ground truth.
        classes: Names of the C classes, free space last.
        groups: Names of classes by name of their group.

    Returns:
        ``mIoU`` (mean over the non-free classes that occur in ground truth or
        prediction), ``IoU`` (occupied against free), ``mIoU_<group>`` and
        ``IoU_<class>`` for the non-free classes, NaN for those that do not
        occur.
    """
    free = len(classes) - 1
    confusion = confusion.double()
    hits = confusion.diagonal()
    per_class = 100 * hits / (confusion.sum(0) + confusion.sum(1) - hits)
    occupied = confusion[:free, :free].sum()
    iou = 100 * occupied / (confusion.sum() - confusion[free, free])
    result = dict(mIoU=per_class[:free].nanmean().item(), IoU=iou.item())
    for group, members in (groups or {}).items():
        chosen = [classes.index(name) for name in members]
        result[f'mIoU_{group}'] = per_class[chosen].nanmean().item()
    result.update((f'IoU_{name}', value) for name, value in zip(classes[:free], per_class.tolist()))
    return result


@METRICS.register_module()
class OccMetric(LabelSpaceMetric):
    """mIoU and IoU over the voxels of a mask, as Occ3D defines them.

    Each sample leaves one (C, C) confusion matrix, so memory does not grow
    with the volume and MMEngine can drop the samples that pad uneven ranks.
    Classes and range are those of the dataset.

    Args:
        mask: Which voxels count: those seen by a ``'camera'`` (the Occ3D
            benchmarks), by the ``'lidar'``, by ``'both'``, or all
            (``'none'``); None for the benchmark's own, see
            ``LabelSpace.mask``.
        ring: Count only voxels at horizontal distances from the first to the
            second of these, metres; all by default.
        ring_at: Whether a voxel's ``'centre'`` or its lower ``'corner'`` (as
            in FB-OCC) is measured.
        **kwargs: Arguments of BaseMetric. Give each of several OccMetrics its
            own ``prefix``.

    Raises:
        ValueError: If an argument takes something else, the dataset has no
            such mask, or a sample lacks a field.
    """

    default_prefix = 'occ'

    def __init__(
        self,
        mask: Optional[str] = None,
        ring: Optional[Tuple[float, float]] = None,
        ring_at: str = 'centre',
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if mask not in (None, *MASKS):
            raise ValueError(f'mask takes one of {MASKS}, got {mask!r}')
        if ring is not None and not (len(ring) == 2 and ring[0] < ring[1]):
            raise ValueError(f'ring takes (smallest, largest) distance in metres, got {ring}')
        if ring_at not in RING_AT:
            raise ValueError(f'ring_at takes one of {RING_AT}, got {ring_at!r}')
        self.mask = mask
        self.ring = ring
        self.ring_at = ring_at
        self._ring_mask: Optional[Tensor] = None

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Adds the confusion matrix of each sample to ``results``.

        Args:
            data_batch: Unused.
            data_samples: OccDataSamples as dicts, with ``pred_occ`` and
                ``gt_occ``.
        """
        space = self.label_space
        counted = space.mask(self.mask, 'OccMetric')
        name = f'OccMetric(mask={counted!r})'
        for sample in data_samples:
            prediction = volume_of(sample, 'pred_occ', 'semantics', name)
            target = volume_of(sample, 'gt_occ', 'semantics', name).cpu()
            mask = mask_of(sample, counted, name)
            mask = None if mask is None else mask.cpu()
            if self.ring is not None:
                inside = self._inside(self.ring, tuple(target.shape))
                mask = inside if mask is None else mask & inside
            self.add_counts(
                confusion_matrix(target, prediction.cpu(), mask, num_classes=space.num_classes)
            )

    def compute_metrics(self, results: List[np.ndarray]) -> Dict[str, float]:
        """Scores of the summed confusion matrices; see :func:`scores`."""
        result = scores(total_counts(results), self.label_space.classes, self.label_space.groups)
        print_log(self._table(result, len(results)), logger='current')
        return result

    def _inside(self, ring: Tuple[float, float], shape: Tuple[int, ...]) -> Tensor:
        if self._ring_mask is None or self._ring_mask.shape != shape:
            self._ring_mask = ring_mask(
                shape, self.label_space.point_cloud_range, ring, self.ring_at
            )
        return self._ring_mask

    def _table(self, result: Dict[str, float], num_samples: int) -> str:
        table = Table('class')
        table.add_column('IoU (%)', justify='right')
        for name in self.label_space.classes[:-1]:
            table.add_row(name, f'{result[f"IoU_{name}"]:.2f}')
        table.add_section()
        table.add_row('mIoU', f'{result["mIoU"]:.2f}')
        table.add_row('IoU (occupied)', f'{result["IoU"]:.2f}')
        for group in self.label_space.groups:
            table.add_row(f'mIoU of {group}', f'{result[f"mIoU_{group}"]:.2f}')
        ring = ''
        if self.ring is not None:
            ring = f', {self.ring[0]:g} to {self.ring[1]:g} m (voxel {self.ring_at})'
        return (
            f'Occupancy of {num_samples} samples, mask: '
            f'{self.label_space.mask(self.mask, "OccMetric")}{ring}'
            f'\n{render_text(table)}'
        )
