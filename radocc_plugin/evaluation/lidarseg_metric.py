"""LiDAR segmentation from occupancy: points take their voxel's class."""

from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.logging import print_log
from rich.table import Table
from torch import Tensor

from radocc_plugin.evaluation.base import LabelSpaceMetric, total_counts
from radocc_plugin.evaluation.sample_fields import meta_of, volume_of
from radocc_plugin.evaluation.terminal import render_text
from radocc_plugin.fileio import read_bytes, read_lidar_file
from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.geometry.frames import transform_points
from radocc_plugin.label_space import LabelSpace
from radocc_plugin.occ3d import CLASSES, FREE, LIDARSEG_TO_OCC3D
from radocc_plugin.registry import METRICS

FREE_VOXELS = ('miss', 'occupied')
# The 16 classes of the benchmark; 0 of nuScenes-lidarseg and what the
# official grouping leaves out is ignored.
LIDARSEG_CLASSES = CLASSES[1:FREE]
IGNORED = -1


def count_points(
    prediction: Tensor, points: Tensor, labels: Tensor, grid: VoxelGrid, num_classes: int
) -> Tensor:
    """Counts of (ground truth, prediction) pairs of LiDAR points.

    Args:
        prediction: Predicted classes of the voxels, shape (X, Y, Z).
        points: Points in the frame of the volume, metres, shape (P, 3).
        labels: Classes of the points, shape (P,); ``IGNORED`` (-1) ones do
            not count.
        grid: Grid of the volume.
        num_classes: Classes C of voxels, free space last.

    Returns:
        Counts, int64, shape (C - 1, C + 1): rows are ground truth; columns
        are the classes of voxels, and points outside the grid.
    """
    counted = labels != IGNORED
    points, labels = points[counted], labels[counted]
    cells, inside = grid.index(points)
    cells = torch.where(inside[:, None], cells, torch.zeros_like(cells))
    predicted = prediction.flatten()[grid.ravel(cells)].long()
    predicted = predicted.masked_fill(~inside, num_classes)
    rows, columns = num_classes - 1, num_classes + 1
    pairs = torch.bincount(labels.long() * columns + predicted, minlength=rows * columns)
    return pairs.reshape(rows, columns)


def lidarseg_scores(counts: Tensor, classes: Sequence[str]) -> Dict[str, float]:
    """Scores in percent from summed counts of :func:`count_points`.

    Args:
        counts: Shape (C - 1, C + 1).
        classes: Names of the C classes of voxels, free space last.

    Returns:
        ``mIoU`` (over those of the 16 classes that occur), ``IoU_<class>``,
        NaN for those that do not occur,
        ``out_of_range`` (share of labelled points outside the grid, which
        count in no IoU) and ``free`` (share of those inside that lie in
        voxels predicted free).
    """
    chosen = [classes.index(name) for name in LIDARSEG_CLASSES]
    counts = counts[chosen].double()
    inside = counts[:, :-1]
    hits = inside[:, chosen].diagonal()
    union = inside.sum(1) + inside[:, chosen].sum(0) - hits
    iou = 100 * hits / union
    result = dict(
        mIoU=iou.nanmean().item(),
        out_of_range=(100 * counts[:, -1].sum() / counts.sum()).item(),
        free=(100 * inside[:, -1].sum() / inside.sum()).item(),
    )
    result.update((f'IoU_{name}', value) for name, value in zip(LIDARSEG_CLASSES, iou.tolist()))
    return result


@METRICS.register_module()
class LidarSegMetric(LabelSpaceMetric):
    """mIoU of nuScenes-lidarseg's 16 classes on the keyframe's own points.

    The metric reads the points itself, so that a camera-only model loads
    none. Needs ``lidar_path``, ``lidarseg_path`` and ``lidar2ego`` in the
    samples' metainfo; ``bda_mat`` is applied if it is there. Each sample
    leaves counts of shape (C - 1, C + 1). Takes label spaces that have the 16
    classes by name.

    Args:
        free_voxels: What a point gets in a voxel predicted free: nothing
            (``'miss'``), or the likeliest class other than free
            (``'occupied'``, as RadOcc's code does), read from
            ``pred_occ.semantics_occupied``. ``OccTTAModel`` writes that
            volume: ``tools/test.py --tta identity``.
        **kwargs: Arguments of BaseMetric.

    Raises:
        ValueError: If ``free_voxels`` is neither, the dataset has other
            classes, a sample lacks a field, or a file is bad; names field
            and file.
    """

    default_prefix = 'lidarseg'

    def __init__(self, free_voxels: str = 'miss', **kwargs) -> None:
        super().__init__(**kwargs)
        if free_voxels not in FREE_VOXELS:
            raise ValueError(f'free_voxels takes one of {FREE_VOXELS}, got {free_voxels!r}')
        self.free_voxels = free_voxels

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Adds the point counts of each sample to ``results``."""
        name = f'LidarSegMetric(free_voxels={self.free_voxels!r})'
        field = 'semantics' if self.free_voxels == 'miss' else 'semantics_occupied'
        space = self.label_space
        class_of = classes_of_labels(space)
        for sample in data_samples:
            prediction = volume_of(sample, 'pred_occ', field, name).cpu()
            points, labels = read_labelled_points(
                meta_of(sample, 'lidar_path', name),
                meta_of(sample, 'lidarseg_path', name),
                sample.get('lidar_columns', 5),
                sample.get('backend_args'),
            )
            lidar2ego = torch.as_tensor(meta_of(sample, 'lidar2ego', name)).double()
            bda_mat = torch.as_tensor(sample.get('bda_mat', np.eye(4)))
            grid = VoxelGrid(space.point_cloud_range, prediction.shape)
            self.add_counts(
                count_points(
                    prediction,
                    transform_points(bda_mat.double() @ lidar2ego, points),
                    class_of[labels],
                    grid,
                    space.num_classes,
                )
            )

    def compute_metrics(self, results: List[np.ndarray]) -> Dict[str, float]:
        """Scores of the summed counts; see :func:`lidarseg_scores`."""
        result = lidarseg_scores(total_counts(results), self.label_space.classes)
        table = Table('class')
        table.add_column('IoU (%)', justify='right')
        for name in LIDARSEG_CLASSES:
            table.add_row(name, f'{result[f"IoU_{name}"]:.2f}')
        table.add_section()
        table.add_row('mIoU', f'{result["mIoU"]:.2f}')
        table.add_row('points out of range', f'{result["out_of_range"]:.2f}')
        if self.free_voxels == 'miss':
            table.add_row('points in free voxels', f'{result["free"]:.2f}')
        print_log(
            f'LiDAR segmentation of {len(results)} samples, points in free '
            f'voxels: {self.free_voxels}\n{render_text(table)}',
            logger='current',
        )
        return result


def read_labelled_points(
    lidar_path: str, lidarseg_path: str, columns: int = 5, backend_args: Optional[dict] = None
) -> Tuple[Tensor, Tensor]:
    """Points of a keyframe and their labels.

    Args:
        lidar_path: Points, float32.
        lidarseg_path: Their labels, uint8.
        columns: Numbers a point.
        backend_args: Where the files lie, see ``fileio.read_bytes``.

    Args:
        lidar_path, num_pts_feats: See ``fileio.read_lidar_file``.
        lidarseg_path: Point labels, uint8.

    Returns:
        Points in the LiDAR frame, float64, (P, 3), and their labels in
        nuScenes-lidarseg, 0 to 31, int64, (P,).

    Raises:
        ValueError: If a file is missing or truncated, a label is unknown, or
            the counts differ; names the file.
    """
    points = read_lidar_file(lidar_path, columns, backend_args)[:, :3]
    try:
        data = read_bytes(lidarseg_path, backend_args)
    except Exception as error:  # a storage raises almost anything
        raise ValueError(f'cannot read {lidarseg_path}: {error}') from error
    labels = np.frombuffer(data, np.uint8)
    if len(labels) != len(points):
        raise ValueError(
            f'lidarseg file {lidarseg_path} takes one uint8 for each of the '
            f'{len(points)} points of {lidar_path}, got {len(labels)}'
        )
    if labels.max() >= len(LIDARSEG_TO_OCC3D):
        raise ValueError(
            f'lidarseg file {lidarseg_path} takes labels 0 to '
            f'{len(LIDARSEG_TO_OCC3D) - 1}, got {labels.max()}'
        )
    return (torch.from_numpy(points.astype(np.float64)), torch.from_numpy(labels.astype(np.int64)))


def classes_of_labels(space: LabelSpace) -> Tensor:
    """Class of each nuScenes-lidarseg label in a label space, int64, (32,).

    ``IGNORED`` is what the 16 classes of the benchmark leave out.

    Raises:
        ValueError: If the label space lacks one of them.
    """
    missing = [c for c in LIDARSEG_CLASSES if c not in space.classes]
    if missing:
        raise ValueError(
            'LidarSegMetric takes the classes of nuScenes-lidarseg, which '
            f'{space.label_space} lacks: {", ".join(missing)}'
        )
    return torch.tensor(
        [space.classes.index(CLASSES[i]) if i else IGNORED for i in LIDARSEG_TO_OCC3D]
    )
