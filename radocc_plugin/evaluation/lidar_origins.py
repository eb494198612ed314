"""From where the rays of RayIoU start."""
from collections import defaultdict
from typing import List, Sequence

import numpy as np


def scene_lidar_origins(infos: Sequence[dict],
                        max_origins: int = 8,
                        max_distance: float = 39.0) -> List[np.ndarray]:
    """LiDAR positions of each keyframe's whole scene, in its ego frame.

    Args:
        infos: Samples of an info file, with ``scene_name``, ``ego2global``
            (4, 4; at LiDAR time) and ``lidar_points.lidar2ego`` (4, 4), the
            frames of a scene in their order. Give the whole file: a part of a
            scene has other origins.
        max_origins: Of more positions, this many are taken at even steps
            from the first to the last.
        max_distance: Positions count where |x| and |y| are below it, metres.

    Returns:
        For each info the origins, float32, shape (K, 3), 1 <= K <= 8: the
        sample's metainfo ``lidar_origins``.

    SparseOcc af4d9df, its dataset of ego poses (RayIoU v1.1).
    """
    positions = defaultdict(list)
    for info in infos:
        lidar2global = np.asarray(info['ego2global']) @ np.asarray(
            info['lidar_points']['lidar2ego'])
        positions[info['scene_name']].append(lidar2global[:, 3])
    origins = []
    for info in infos:
        global2ego = np.linalg.inv(np.asarray(info['ego2global'], np.float64))
        points = (np.stack(positions[info['scene_name']]) @ global2ego.T)
        points = points[(np.abs(points[:, :2]) < max_distance).all(1), :3]
        if len(points) > max_origins:
            steps = np.linspace(0, len(points) - 1, max_origins)
            points = points[np.round(steps).astype(int)]
        origins.append(points.astype(np.float32))
    return origins
