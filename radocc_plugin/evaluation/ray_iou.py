"""RayIoU of occupancy predictions, as an MMEngine evaluator."""

import math
from typing import Dict, List, Sequence, Tuple

import numpy as np
import torch
from mmengine.logging import print_log
from rich.table import Table
from torch import Tensor

from radocc_plugin.evaluation.base import LabelSpaceMetric, total_counts
from radocc_plugin.evaluation.lidar_rays import cast_rays, lidar_directions
from radocc_plugin.evaluation.sample_fields import meta_of, volume_of
from radocc_plugin.evaluation.terminal import render_text
from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.registry import METRICS

THRESHOLDS = (1.0, 2.0, 4.0)  # metres


def count_rays(
    prediction: Tensor,
    target: Tensor,
    origins: Tensor,
    grid: VoxelGrid,
    published_quirks: bool = True,
    *,
    free: int,
    distances: Sequence[Tuple[float, float]] = (),
) -> Tensor:
    """Rays of each class, and those that agree in class and depth.

    Args:
        prediction: Labels, shape (X, Y, Z).
        target: Ground truth labels, same shape.
        origins: Sensor positions in the frame of the labels, metres, (K, 3).
        grid: Grid of the labels.
        published_quirks: See :func:`cast_rays`.
        free: Label of free space; those below it are classes.
        distances: Pairs (from, to) in metres, for counts of the rays whose
            ground truth ends in between.

    Returns:
        Counts, int64, shape (5, free): rays whose ground truth, whose
        prediction is of the class, and rays of the class in both whose
        depths differ by less than 1, 2 and 4 m. Only rays that meet an
        occupied voxel of the ground truth count. Five more rows for each of
        ``distances``.
    """
    parts = [(-math.inf, math.inf), *distances]
    counts = torch.zeros(
        len(parts), 2 + len(THRESHOLDS), free, dtype=torch.long, device=target.device
    )
    volumes = torch.stack((target, prediction))
    directions = lidar_directions().to(target.device)
    for origin in origins.to(directions):
        hits = cast_rays(volumes, origin, directions, grid, published_quirks, free=free)
        # unlabelled voxels are as free as free ones
        counted = hits.counted & (hits.labels[0] < free)
        for part, (low, high) in enumerate(parts):
            inside = counted & (hits.distances[0] >= low) & (hits.distances[0] < high)
            truth, predicted = hits.labels[:, inside].long()
            difference = (hits.distances[0] - hits.distances[1])[inside].abs()
            same = truth == predicted
            rows = [truth, predicted[predicted < free]]
            rows += [truth[same & (difference < t)] for t in THRESHOLDS]
            for row, classes in enumerate(rows):
                counts[part, row] += torch.bincount(classes, minlength=free)
    return counts.flatten(0, 1)


def ray_scores(counts: Tensor, classes: Sequence[str]) -> Dict[str, float]:
    """RayIoU in percent from summed counts.

    Args:
        counts: Shape (5, K), see :func:`count_rays`.
        classes: Names of the K classes, or with free space behind them.

    Returns:
        ``RayIoU`` (mean over classes that occur and thresholds),
        ``RayIoU@1``, ``@2``, ``@4`` and ``RayIoU_<class>``, NaN for classes
        that do not occur.
    """
    truth, predicted, *agreeing = counts.double()
    hits = torch.stack(agreeing)
    iou = 100 * hits / (truth + predicted - hits)
    result = dict(RayIoU=iou.nanmean().item())
    for threshold, row in zip(THRESHOLDS, iou):
        result[f'RayIoU@{threshold:g}'] = row.nanmean().item()
    result.update((f'RayIoU_{name}', value) for name, value in zip(classes, iou.mean(0).tolist()))
    return result


@METRICS.register_module()
class RayIoU(LabelSpaceMetric):
    """IoU of LiDAR-like rays that agree in class and depth (SparseOcc v1.1).

    Each sample leaves counts of shape (5, K) for K classes without free, and
    as many again for each of ``distances``. All
    voxels count, no camera mask. Classes and range are the dataset's. Needs
    ``lidar_origins`` (K, 3) in the samples' metainfo, see
    :func:`scene_lidar_origins`. Runs on the device of the prediction.

    Args:
        published_quirks: Count as the published code does; False measures
            entry depths and skips rays that miss the grid. Numbers in papers
            are True.
        distances: Pairs (from, to) in metres; adds ``RayIoU_<from>-<to>m`` of
            the rays whose ground truth ends in between.
        **kwargs: Arguments of BaseMetric.

    Raises:
        ValueError: If a pair of ``distances`` is none, or a sample lacks a
            field.
    """

    default_prefix = 'ray'

    def __init__(
        self, published_quirks: bool = True, distances: Sequence[Tuple[float, float]] = (), **kwargs
    ) -> None:
        super().__init__(**kwargs)
        for pair in distances:
            if len(pair) != 2 or not 0 <= pair[0] < pair[1]:
                raise ValueError(f'RayIoU.distances takes pairs (from, to) in metres, got {pair}')
        self.published_quirks = published_quirks
        self.distances = [(low, high) for low, high in distances]

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Adds the ray counts of each sample to ``results``."""
        for sample in data_samples:
            prediction = volume_of(sample, 'pred_occ', 'semantics', 'RayIoU')
            target = volume_of(sample, 'gt_occ', 'semantics', 'RayIoU')
            origins = torch.as_tensor(meta_of(sample, 'lidar_origins', 'RayIoU'))
            space = self.label_space
            grid = VoxelGrid(space.point_cloud_range, target.shape)
            self.add_counts(
                count_rays(
                    prediction,
                    target.to(prediction.device),
                    origins,
                    grid,
                    self.published_quirks,
                    free=space.free,
                    distances=self.distances,
                ).cpu()
            )

    def compute_metrics(self, results: List[np.ndarray]) -> Dict[str, float]:
        """Scores of the summed counts; see :func:`ray_scores`."""
        classes = self.label_space.classes
        total = total_counts(results)
        counts, *parts = total.view(-1, 2 + len(THRESHOLDS), total.shape[-1])
        result = ray_scores(counts, classes)
        for (low, high), part in zip(self.distances, parts):
            result[f'RayIoU_{low:g}-{high:g}m'] = ray_scores(part, classes)['RayIoU']
        table = Table('class')
        table.add_column('RayIoU (%)', justify='right')
        for name in classes[:-1]:
            table.add_row(name, f'{result[f"RayIoU_{name}"]:.2f}')
        table.add_section()
        for name in ('RayIoU', *(f'RayIoU@{t:g}' for t in THRESHOLDS)):
            table.add_row(name, f'{result[name]:.2f}')
        for low, high in self.distances:
            table.add_row(f'{low:g} to {high:g} m', f'{result[f"RayIoU_{low:g}-{high:g}m"]:.2f}')
        definition = 'published' if self.published_quirks else 'entry depths'
        print_log(
            f'Rays of {len(results)} samples, no mask, {definition}\n{render_text(table)}',
            logger='current',
        )
        return result
