"""LiDAR sweeps in the LiDAR frame of the keyframe."""

from typing import Optional, Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from radocc_plugin.datasets.transforms.lidar import check_lidar, drop_ego_vehicle, read_once
from radocc_plugin.registry import TRANSFORMS

DRAWS = ('newest', 'random')


@TRANSFORMS.register_module()
class LoadLidarSweeps(BaseTransform):
    """Reads the keyframe's sweep and past ones into the LiDAR frame.

    Adds ``lidar_points``, float32, shape (P, 5): x, y, z in metres, intensity
    in [0, 255], seconds before the keyframe; the keyframe's own points first.
    BEVFusion's loader, which DAOcc uses: points close to the sensor are taken
    out of past sweeps only, and a keyframe without any is its own past.

    Args:
        num_sweeps: Past sweeps to add. A sample near the start of its scene
            has fewer and gets those.
        close: Points of past sweeps with ``|x|`` and ``|y|`` below it in
            their own sensor frame are dropped, metres.
        point_cloud_range: ``(x0, y0, z0, x1, y1, z1)`` in metres; points
            strictly inside are kept, all if None.
        draw: Which sweeps if there are more: the ``'newest'``, or a
            ``'random'`` draw, as published, in training and testing alike.
        shuffle: Whether to shuffle the points, as published in training; the
            order decides what hard voxels drop.

    Raises:
        ValueError: If ``draw`` is neither, or a file is missing, empty, or
            not a whole number of points; names the file.

    AlphaPlusTT/DAOcc 6846432b.
    """

    def __init__(
        self,
        num_sweeps: int = 9,
        close: float = 1.0,
        point_cloud_range: Optional[Sequence[float]] = None,
        draw: str = 'newest',
        shuffle: bool = False,
    ) -> None:
        if draw not in DRAWS:
            raise ValueError(f'draw takes one of {DRAWS}, got {draw!r}')
        self.num_sweeps = num_sweeps
        self.close = close
        self.point_cloud_range = point_cloud_range
        self.draw = draw
        self.shuffle = shuffle

    def transform(self, results: dict) -> dict:
        check_lidar(results, self)
        key = read_once(results, results['lidar_path'])
        ego2lidar = np.linalg.inv(results['lidar2ego'])
        sweeps = self._choose(results['lidar_sweeps'])
        points = merge_sweeps(
            key,
            [read_once(results, sweep['lidar_path']) for sweep in sweeps],
            [ego2lidar @ sweep['lidar2ego'] for sweep in sweeps],
            [sweep['lag'] for sweep in sweeps],
            self.close,
            self.num_sweeps,
        )
        if self.point_cloud_range is not None:
            points = strictly_inside(points, self.point_cloud_range)
        if self.shuffle:
            points = np.random.permutation(points)
        results['lidar_points'] = points
        return results

    def _choose(self, sweeps: Sequence[dict]) -> Sequence[dict]:
        if len(sweeps) <= self.num_sweeps or self.draw == 'newest':
            return sweeps[: self.num_sweeps]
        chosen = np.random.choice(len(sweeps), self.num_sweeps, replace=False)
        return [sweeps[i] for i in chosen]


def merge_sweeps(
    key: np.ndarray,
    sweeps: Sequence[np.ndarray],
    sensor2lidar: Sequence[np.ndarray],
    lags: Sequence[float],
    close: float,
    copies: int,
) -> np.ndarray:
    """The points of a keyframe and of past sweeps, in its LiDAR frame.

    Args:
        key: Points of the keyframe, columns x, y, z, intensity and any
            others, shape (P, 4 or more).
        sweeps: Points of each sweep in its own frame, likewise.
        sensor2lidar: From that frame to the keyframe's, (4, 4) each.
        lags: Seconds of each sweep before the keyframe.
        close: See ``LoadLidarSweeps``.
        copies: How often the keyframe is added where there are no sweeps.

    Returns:
        Shape (P, 5), float32; the fifth column is the lag.
    """
    if len(sweeps) == 0:
        sweeps, lags = [key] * copies, [0.0] * copies
        sensor2lidar = [np.eye(4)] * copies
    clouds = [np.pad(key[:, :4].astype(np.float32), ((0, 0), (0, 1)))]
    area = (-close, -close, close, close)
    for points, matrix, lag in zip(sweeps, sensor2lidar, lags):
        points = drop_ego_vehicle(points, area)[:, :4].astype(np.float64)
        points[:, :3] = points[:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
        points = np.pad(points, ((0, 0), (0, 1)), constant_values=lag)
        clouds.append(points.astype(np.float32))
    return np.concatenate(clouds)


def strictly_inside(points: np.ndarray, point_cloud_range: Sequence[float]) -> np.ndarray:
    """Points (P, 5) between the bounds, in their order."""
    low, high = np.reshape(point_cloud_range, (2, 3))
    return points[((points[:, :3] > low) & (points[:, :3] < high)).all(1)]
