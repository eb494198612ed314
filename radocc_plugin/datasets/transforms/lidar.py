"""LiDAR: sweeps in the key ego frame, depth maps seen by the cameras."""

from typing import Tuple

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from radocc_plugin.datasets.transforms.bev import check_before_bda
from radocc_plugin.fileio import read_lidar_file
from radocc_plugin.geometry import Cameras
from radocc_plugin.registry import TRANSFORMS

Rectangle = Tuple[float, float, float, float]  # x0, y0, x1, y1; metres

# The nuScenes car around its LiDAR (x right, y ahead).
EGO_VEHICLE = (-1.0, -2.0, 1.0, 2.4)


@TRANSFORMS.register_module()
class LoadLidarPoints(BaseTransform):
    """Reads the keyframe's sweep and past ones into the key ego frame.

    Adds ``points``, float64, shape (P, 5): x, y, z in metres, intensity in
    [0, 255], seconds before the keyframe (0 for the keyframe's own sweep).

    Args:
        num_sweeps: Past sweeps to add, newest first. A sample near the start
            of its scene has fewer and gets those; one with a past and none
            is an error.
        ego_vehicle: Points in this area of the sensor frame are dropped:
            returns from the car itself.

    Raises:
        ValueError: If a file is missing, empty, or not a whole number of
            points; names the file.
    """

    def __init__(self, num_sweeps: int = 0, ego_vehicle: Rectangle = EGO_VEHICLE) -> None:
        self.num_sweeps = num_sweeps
        self.ego_vehicle = ego_vehicle

    def transform(self, results: dict) -> dict:
        check_before_bda(results, self)
        check_lidar(results, self)
        key = dict(lidar_path=results['lidar_path'], lidar2ego=results['lidar2ego'], lag=0.0)
        sweeps = [key, *results['lidar_sweeps'][: self.num_sweeps]]
        results['points'] = np.concatenate([self._load(results, sweep) for sweep in sweeps])
        return results

    def _load(self, results: dict, sweep: dict) -> np.ndarray:
        points = read_once(results, sweep['lidar_path'])
        points = points[:, :4].astype(np.float64)
        points = drop_ego_vehicle(points, self.ego_vehicle)
        lidar2ego = sweep['lidar2ego']
        points[:, :3] = points[:, :3] @ lidar2ego[:3, :3].T + lidar2ego[:3, 3]
        lags = np.full((len(points), 1), sweep['lag'])
        return np.concatenate([points, lags], 1)


def check_lidar(results: dict, transform: BaseTransform) -> None:
    """Raises a ValueError if a sample lists no LiDAR files, or no past ones
    though it has a past and ``transform`` wants ``num_sweeps``."""
    name = type(transform).__name__
    if 'lidar_path' not in results:
        raise ValueError(
            f'sample {results["token"]} has no lidar_path, since its info '
            f'file was written with --camera-only; leave {name} out, and set '
            'loss_depth_weight=0 of the student'
        )
    if transform.num_sweeps and not results['lidar_sweeps'] and results.get('prev'):
        raise ValueError(
            f'sample {results["token"]} lists no past sweeps, though it has a '
            'past; write the info file with tools/create_data.py '
            f'--num-sweeps, or set num_sweeps=0 of {name}'
        )


def read_once(results: dict, path: str) -> np.ndarray:
    """``read_lidar_file``, kept for other transforms of the sample; whoever
    changes the points takes a copy."""
    files = results.setdefault('lidar_files', {})
    if path not in files:
        files[path] = read_lidar_file(
            path, results.get('lidar_columns', 5), results.get('backend_args')
        )
    return files[path]


def drop_ego_vehicle(points: np.ndarray, area: Rectangle = EGO_VEHICLE) -> np.ndarray:
    """Sensor-frame points (P, 3 or more) outside ``area``, at any height."""
    inside = (points[:, :2] > area[:2]) & (points[:, :2] < area[2:])
    return points[~inside.all(1)]


@TRANSFORMS.register_module()
class PointsToDepthMaps(BaseTransform):
    """Depth of the keyframe's LiDAR returns in each augmented image.

    Adds ``gt_depth``, float32, shape (N, H, W): projection depth in metres of
    the nearest return in a pixel, 0 where there is none. Past sweeps are left
    out: what moved would leave a trail.

    Args:
        depth_range: Depths in ``[near, far)`` metres are kept.
        pixel_centre: Coordinate of the first pixel's centre. 0.5 fills the
            pixel a return falls into (our convention); published BEVDet
            rounds coordinates, which is 0.
    """

    def __init__(
        self, depth_range: Tuple[float, float] = (1.0, 60.0), pixel_centre: float = 0.5
    ) -> None:
        near, far = depth_range
        if not 0 < near < far:
            raise ValueError(f'depth_range takes 0 < near < far in metres, got {depth_range}')
        self.depth_range = (near, far)
        self.pixel_centre = pixel_centre

    def transform(self, results: dict) -> dict:
        if 'points' not in results:
            raise ValueError(
                'PointsToDepthMaps needs points; put LoadLidarPoints before it in the pipeline'
            )
        points = results['points']
        pixels, depths = _project(points[points[:, 4] == 0, :3], results)
        augmentation = results['img_aug_mat']
        pixels = pixels @ augmentation[:, :2, :2].transpose(0, 2, 1) + augmentation[:, None, :2, 3]
        results['gt_depth'] = np.stack(
            [self._draw(*view, results['img_shape']) for view in zip(pixels, depths)]
        )
        return results

    def _draw(self, pixels: np.ndarray, depths: np.ndarray, shape: Tuple[int, int]) -> np.ndarray:
        near, far = self.depth_range
        kept = (depths >= near) & (depths < far)
        pixels, depths = pixels[kept], depths[kept]
        cells = np.floor(pixels + (0.5 - self.pixel_centre)).astype(int)
        columns, rows = cells.T
        kept = (columns >= 0) & (columns < shape[1]) & (rows >= 0) & (rows < shape[0])
        depth_map = np.full(shape, np.inf)
        np.minimum.at(depth_map, (rows[kept], columns[kept]), depths[kept])
        return np.where(np.isinf(depth_map), 0, depth_map).astype(np.float32)


def _project(points: np.ndarray, results: dict) -> Tuple[np.ndarray, np.ndarray]:
    """Raw pixels (N, P, 2) and depths (N, P) of augmented-ego points."""
    matrices = [torch.from_numpy(results[name])[None] for name in ('cam2img', 'cam2ego', 'bda_mat')]
    cameras = Cameras(*matrices, image_size=results['ori_shape'])
    pixels, depths = cameras.project(torch.from_numpy(points)[None])
    return pixels[0].numpy(), depths[0].numpy()
