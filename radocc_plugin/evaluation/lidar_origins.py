"""From where the rays of RayIoU start."""

from collections import defaultdict
from typing import List, Sequence

import numpy as np


def scene_lidar_origins(
    infos: Sequence[dict],
    point_cloud_range: Sequence[float],
    max_origins: int = 8,
    margin: float = 1.0,
) -> List[np.ndarray]:
    """LiDAR positions of each keyframe's whole scene, in its labels' frame.

    Args:
        infos: Keyframes, each ``scene_name``, ``volume2global`` (the frame of
            its labels, e.g. ego) and ``lidar2global``, (4, 4), both at LiDAR
            time; the frames of a scene in their order. Give all of a split: a
            part of a scene has other origins.
        point_cloud_range: Range of the labels, metres.
        max_origins: Of more positions, this many are taken at even steps
            from the first to the last.
        margin: Positions count where x and y are farther than this from the
            borders of the range, metres.

    Returns:
        For each info the origins, float32, shape (K, 3), K <= 8: the
        sample's metainfo ``lidar_origins``.

    SparseOcc af4d9df, its dataset of ego poses (RayIoU v1.1).
    """
    positions = defaultdict(list)
    for info in infos:
        positions[info['scene_name']].append(info['lidar2global'][:, 3])
    low, high = np.reshape(point_cloud_range, (2, 3))[:, :2]
    origins = []
    for info in infos:
        global2volume = np.linalg.inv(info['volume2global'])
        points = np.stack(positions[info['scene_name']]) @ global2volume.T
        inside = (points[:, :2] > low + margin) & (points[:, :2] < high - margin)
        points = points[inside.all(1), :3]
        if len(points) > max_origins:
            steps = np.linspace(0, len(points) - 1, max_origins)
            points = points[np.round(steps).astype(int)]
        origins.append(points.astype(np.float32))
    return origins
