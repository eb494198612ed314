"""The sensor rig: six cameras and a 32-beam LiDAR, calibrated like nuScenes.

R rays, P points. Poses are ``a2b`` matrices, homogeneous, float64.
"""

from dataclasses import dataclass
from typing import Dict, NamedTuple, Tuple

import numpy as np

from radocc_plugin.synthetic.materials import Surfaces
from radocc_plugin.synthetic.objects import PART_REFLECTIVITY
from radocc_plugin.synthetic.ray_casting import Hits, cast_rays, prepare_shadows
from radocc_plugin.synthetic.shading import PAINT_COLOURS, Lighting, shade
from radocc_plugin.synthetic.traffic import Traffic
from radocc_plugin.synthetic.world import PAINT_SIZE, Street

_CAMERA_REACH = 130.0
LIDAR_REACH = 75.0
_RINGS, _AZIMUTHS = 32, 1084
_LOWEST_BEAM, _HIGHEST_BEAM = -30.67, 10.67

# Camera: focal length and principal point in pixels of a 1600 x 900 image,
# position in the ego frame, yaw in degrees, and when it fires relative to the
# LiDAR, microseconds. Typical nuScenes values.
_CAMERAS = {
    'CAM_FRONT': (1266, 816, 491, (1.70, 0.02, 1.51), 0.3, -35491),
    'CAM_FRONT_RIGHT': (1261, 808, 495, (1.55, -0.49, 1.50), -56.4, -27612),
    'CAM_BACK_RIGHT': (1260, 807, 501, (1.01, -0.48, 1.56), -110.8, -20058),
    'CAM_BACK': (809, 829, 482, (0.03, 0.00, 1.58), 179.9, -10426),
    'CAM_BACK_LEFT': (1257, 792, 493, (1.04, 0.48, 1.59), 108.6, -528),
    'CAM_FRONT_LEFT': (1273, 827, 480, (1.52, 0.49, 1.51), 55.2, -43107),
}
_LIDAR_POSITION, _LIDAR_YAW = (0.943713, 0.0, 1.840230), -89.85
# Optical axes: camera x right, y down, z forward; ego x forward, y left, z up.
_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
CAMERA_NAMES: Tuple[str, ...] = tuple(_CAMERAS)
CAMERA_DELAYS: Dict[str, int] = {n: v[-1] for n, v in _CAMERAS.items()}


class Camera(NamedTuple):
    """A calibrated camera: ``cam2img`` (3, 3) and ``cam2ego`` (4, 4)."""

    cam2img: np.ndarray
    cam2ego: np.ndarray


@dataclass(frozen=True)
class Rig:
    """Calibration of one vehicle.

    Args:
        cameras: One calibrated camera per name.
        lidar2ego: LiDAR to ego frame, shape (4, 4).
        image_size: Width and height in pixels.
    """

    cameras: Dict[str, Camera]
    lidar2ego: np.ndarray
    image_size: Tuple[int, int]


class Scan(NamedTuple):
    """One LiDAR sweep.

    points: x, y, z in the LiDAR frame, intensity, ring; (P, 5) float32.
    lidarseg: nuScenes-lidarseg index of each point, (P,) uint8.
    instance: Object of each point, -1 for none, (P,).
    """

    points: np.ndarray
    lidarseg: np.ndarray
    instance: np.ndarray


def pose_matrix(x: float, y: float, z: float, yaw: float) -> np.ndarray:
    """Homogeneous matrix of a planar pose; ``yaw`` in radians."""
    matrix = np.eye(4)
    cos, sin = np.cos(yaw), np.sin(yaw)
    matrix[:2, :2] = [[cos, -sin], [sin, cos]]
    matrix[:3, 3] = x, y, z
    return matrix


def _small_rotation(rng, degrees: float) -> np.ndarray:
    """A random rotation of about ``degrees``, by Rodrigues' formula."""
    vector = np.radians(rng.normal(0, degrees, 3))
    angle = np.linalg.norm(vector)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def make_rig(rng: np.random.Generator, image_size: Tuple[int, int]) -> Rig:
    """A rig whose mounting differs a little from vehicle to vehicle."""
    width, height = image_size
    cameras = {}
    for name, (focal, cx, cy, position, yaw, _) in _CAMERAS.items():
        focal = focal * rng.normal(1, 0.003)
        scale = np.diag([width / 1600, height / 900, 1.0])
        cam2img = scale @ np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1]])
        cam2ego = pose_matrix(*position, np.radians(yaw))
        cam2ego[:3, :3] = cam2ego[:3, :3] @ _OPTICAL @ _small_rotation(rng, 0.3)
        cam2ego[:3, 3] += rng.normal(0, 0.01, 3)
        cameras[name] = Camera(cam2img, cam2ego)
    lidar2ego = pose_matrix(*_LIDAR_POSITION, np.radians(_LIDAR_YAW))
    lidar2ego[:3, :3] = lidar2ego[:3, :3] @ _small_rotation(rng, 0.5)
    return Rig(cameras, lidar2ego, image_size)


def camera_rays(cam2img: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Ray directions through pixels, camera frame, z = 1.

    Args:
        cam2img: Intrinsics, shape (3, 3).
        pixels: Pixel coordinates (u, v), shape (R, 2); the centre of pixel
            (column i, row j) is (i + 0.5, j + 0.5).
    """
    u = (pixels[:, 0] - cam2img[0, 2]) / cam2img[0, 0]
    v = (pixels[:, 1] - cam2img[1, 2]) / cam2img[1, 1]
    return np.stack([u, v, np.ones_like(u)], axis=-1)


def pixel_centres(width: int, height: int) -> np.ndarray:
    """Centres of all pixels, row by row, shape (height * width, 2)."""
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([u.ravel(), v.ravel()], axis=-1)


def _nearby(objects, origin, reach: float) -> np.ndarray:
    """Objects within reach of a point."""
    distance = np.linalg.norm(objects.centre - origin, axis=1)
    return np.flatnonzero(distance < reach + objects.radius)


def _in_cone(objects, origin, reach: float, axis, cosine: float) -> np.ndarray:
    """Objects within reach that a cone around a unit axis touches."""
    offset = objects.centre - origin
    distance = np.linalg.norm(offset, axis=1)
    angle = np.arccos(np.clip(offset @ axis / distance, -1, 1))
    angle -= np.arcsin(np.minimum(objects.radius / distance, 1))
    inside = (angle < np.arccos(cosine)) | (distance < objects.radius)
    return np.flatnonzero(inside & (distance < reach + objects.radius))


class View(NamedTuple):
    """A camera image: RGB (H, W, 3) uint8 and what its rays met."""

    image: np.ndarray
    hits: Hits


def take_picture(
    street: Street,
    traffic: Traffic,
    surfaces: Surfaces,
    lighting: Lighting,
    camera: Camera,
    cam2world: np.ndarray,
    image_size: Tuple[int, int],
    time: float,
    rng: np.random.Generator,
) -> View:
    """Renders one camera at a time in seconds."""
    width, height = image_size
    objects = traffic.objects(time)
    rays = camera_rays(camera.cam2img, pixel_centres(width, height))
    rays = rays @ cam2world[:3, :3].T
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    origin = cam2world[:3, 3].copy()
    axis = cam2world[:3, 2]
    seen = _in_cone(objects, origin, _CAMERA_REACH, axis, (rays @ axis).min())
    hits = cast_rays(street.grid, objects, seen, origin, rays, _CAMERA_REACH)
    shadows = prepare_shadows(objects, _nearby(objects, origin, 45.0), lighting.sun)
    radiance = shade(
        hits,
        origin,
        rays,
        street.grid,
        objects,
        shadows,
        surfaces,
        traffic.palette,
        street.paint,
        street.paint_lower,
        PAINT_SIZE,
        PAINT_COLOURS,
        lighting,
    )
    image = _develop(radiance.reshape(height, width, 3), rng)
    return View(image, hits)


def _develop(radiance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exposure, vignetting, tone curve and sensor noise."""
    height, width = radiance.shape[:2]
    # Automatic exposure is never quite right.
    grey = np.exp(np.log(radiance.mean(-1) + 1e-3).mean())
    exposure = 0.32 / (grey + 0.1) * np.exp(rng.normal(0, 0.12))
    balance = np.exp(rng.normal(0, 0.02, 3))
    u = np.linspace(-1, 1, width)[None, :]
    v = np.linspace(-1, 1, height)[:, None]
    vignette = 1 - 0.12 * (u * u + v * v)
    gain = (exposure * vignette)[..., None] * balance
    exposed = radiance * gain.astype(np.float32)
    noisy = exposed + rng.standard_normal(exposed.shape, dtype=np.float32) * np.sqrt(
        np.float32(1.5e-4) * exposed + np.float32(1e-5)
    )
    toned = 1 - np.exp(np.float32(-1.6) * np.maximum(noisy, 0))
    return np.round(255 * toned ** np.float32(1 / 2.2)).astype(np.uint8)


def scan_rays() -> Tuple[np.ndarray, np.ndarray]:
    """Beam directions of a sweep, LiDAR frame, and the ring of each.

    Returns:
        Unit directions, shape (R, 3), firing by firing, the 32 rings of a
        firing from the lowest up; rings, shape (R,).
    """
    elevation = np.radians(np.linspace(_LOWEST_BEAM, _HIGHEST_BEAM, _RINGS))
    # The head turns clockwise and a sweep starts behind the vehicle.
    azimuth = -np.pi / 2 - 2 * np.pi * np.arange(_AZIMUTHS) / _AZIMUTHS
    azimuth = azimuth[:, None]
    directions = np.stack(
        np.broadcast_arrays(
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ),
        -1,
    )
    return directions.reshape(-1, 3), np.tile(np.arange(_RINGS), _AZIMUTHS)


def scan(
    street: Street,
    traffic: Traffic,
    surfaces: Surfaces,
    lidar2world: np.ndarray,
    time: float,
    rng: np.random.Generator,
) -> Scan:
    """One LiDAR sweep at a time in seconds; a sweep takes no time here."""
    local, rings = scan_rays()
    directions = local @ lidar2world[:3, :3].T
    origin = lidar2world[:3, 3].copy()
    objects = traffic.objects(time)
    hits = cast_rays(
        street.grid, objects, _nearby(objects, origin, LIDAR_REACH), origin, directions, LIDAR_REACH
    )
    on_object = hits.instance >= 0
    reflectivity = np.where(
        on_object, PART_REFLECTIVITY[hits.material % 8], surfaces.reflectivity[hits.material]
    )
    returned = np.isfinite(hits.distance)
    distance = np.where(returned, hits.distance, 1.0).astype(np.float64)
    facing = np.abs((hits.normal * directions).sum(-1))
    # Dark, far and grazed surfaces lose returns.
    strength = reflectivity * (0.3 + 0.7 * facing) / (1 + (distance / 35) ** 2)
    returned &= rng.random(len(distance)) < 0.98 * (1 - np.exp(-strength))
    distance = distance + rng.normal(0, 0.02, len(distance))
    intensity = np.clip(reflectivity * rng.gamma(6, 1 / 6, len(distance)), 0, 255)
    points = np.column_stack([local * distance[:, None], np.round(intensity), rings])
    lidarseg = np.where(
        on_object, traffic.lidarseg[hits.instance], surfaces.lidarseg[hits.material]
    )
    return Scan(
        points[returned].astype(np.float32),
        lidarseg[returned].astype(np.uint8),
        hits.instance[returned],
    )
