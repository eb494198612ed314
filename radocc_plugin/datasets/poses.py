"""Poses of nuScenes records and what BEVFormer calls the CAN bus vector."""

from typing import Optional, Sequence, Tuple

import numpy as np
from pyquaternion import Quaternion

# accelerations, rotation rates and velocities in the CAN bus vector
MOTION = slice(7, 16)


def pose_matrix(rotation: Sequence[float], translation: Sequence[float]) -> np.ndarray:
    """Matrix (4, 4) of a quaternion (w, x, y, z) and a translation."""
    matrix = Quaternion(rotation).transformation_matrix
    matrix[:3, 3] = translation
    return matrix


def as_matrix(values) -> np.ndarray:
    """A matrix of an info, which may hold lists, as float64."""
    return np.asarray(values, np.float64)


def lidar2global(ego2global, record: dict) -> np.ndarray:
    """LiDAR of a keyframe or sweep to global at its timestamp, (4, 4)."""
    return as_matrix(ego2global) @ as_matrix(record['lidar2ego'])


def cam2global(info: dict, image: dict) -> np.ndarray:
    """Camera of a keyframe to global at the camera's timestamp, (4, 4)."""
    if 'ego2global' in image:
        return as_matrix(image['ego2global']) @ as_matrix(image['cam2ego'])
    # mmdet3d's files hold no camera ego pose, but the moved calibration
    return lidar2global(info['ego2global'], info['lidar_points']) @ np.linalg.inv(
        as_matrix(image['lidar2cam'])
    )


def can_bus_vector(
    rotation: Sequence[float],
    translation: Sequence[float],
    motion: Optional[Sequence[float]] = None,
) -> np.ndarray:
    """The 18 numbers that BEVFormer knows of the ego.

    Args:
        rotation: Quaternion (w, x, y, z) of ego to global, with the sign that
            the tables have.
        translation: Of ego to global, metres.
        motion: Acceleration (m/s^2), rotation rate (rad/s) and velocity
            (m/s), three numbers each, of a CAN bus message; None where the
            expansion is not installed.

    Returns:
        Shape (18,): translation, four times the quaternion's scalar part,
        motion (NaN if unknown), yaw in [0, 2 pi), yaw in [0, 360) degrees.

    CVPR2023-Occ @4781df9, ``get_data_info`` of its dataset, which assigns a
    quaternion object to four places; numpy takes its scalar part for each,
    and the published weights were trained so. The yaw is told anyway.
    """
    ahead = Quaternion(rotation).rotation_matrix[:, 0]
    yaw = np.degrees(np.arctan2(ahead[1], ahead[0])) % 360
    vector = np.full(18, np.nan)
    vector[:3], vector[3:7] = translation, rotation[0]
    vector[16:] = np.radians(yaw), yaw
    if motion is not None:
        vector[MOTION] = motion
    return vector


def relative_can_bus(can_bus: np.ndarray, scenes: Sequence) -> Tuple[np.ndarray, np.ndarray]:
    """CAN bus vectors of a queue, each relative to the frame before.

    Args:
        can_bus: Vectors of :func:`can_bus_vector`, oldest first, (T, 18).
        scenes: Scene of each of the T frames.

    Returns:
        The vectors with translation and yaw in degrees (entries 0 to 2 and
        17) as differences to the frame before, 0 where the scene begins, not
        wrapped; and whether a frame has one before it in its scene, (T,).

    CVPR2023-Occ @4781df9, ``union2one``.
    """
    relative = np.array(can_bus, np.float64)
    has_previous = np.zeros(len(relative), bool)
    for t in range(len(relative)):
        has_previous[t] = t > 0 and scenes[t] == scenes[t - 1]
        before = can_bus[t - 1] if has_previous[t] else can_bus[t]
        for entries in (slice(0, 3), 17):
            relative[t, entries] = can_bus[t][entries] - before[entries]
    return relative, has_previous
