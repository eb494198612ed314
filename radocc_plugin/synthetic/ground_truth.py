"""Occ3D ground truth of the synthetic world: labels and visibility masks.

X, Y, Z the Occ3D grid (200, 200, 16) around the key ego pose, C classes.
"""

from typing import List, Tuple

import numpy as np
from numba import njit

from radocc_plugin.occ3d import (
    CLASSES,
    FREE,
    GRID_SHAPE,
    LIDARSEG_TO_OCC3D,
    POINT_CLOUD_RANGE,
    VOXEL_SIZE,
)
from radocc_plugin.synthetic.materials import Surfaces
from radocc_plugin.synthetic.ray_casting import ObjectArrays, StaticGrid, cast_rays
from radocc_plugin.synthetic.sensors import Camera
from radocc_plugin.synthetic.traffic import Traffic
from radocc_plugin.synthetic.world import Street

_LOWER = np.array(POINT_CLOUD_RANGE[:3])
_UPPER = np.array(POINT_CLOUD_RANGE[3:])
_TO_OCC3D = np.array(LIDARSEG_TO_OCC3D, np.uint8)
# A cell takes the class with the largest volume times this weight, so that
# small things survive and the ground gives way to what stands on it.
_FLAT = ('driveable_surface', 'other_flat', 'sidewalk', 'terrain')
_SMALL = ('others', 'barrier', 'bicycle', 'motorcycle', 'pedestrian', 'traffic_cone')
_WEIGHT = np.array(
    [1.0 if name in _FLAT else 16.0 if name in _SMALL else 4.0 for name in CLASSES[:FREE]]
)
# How far a camera ray is followed into the surface that it meets, metres.
_INTO_SURFACE = 0.01


@njit(cache=True)
def _static_labels(grid, occ3d, ego2world, lower, size, weight, labels, scores):
    """Labels every cell from 4 x 4 x 2 sub-samples of the static voxels."""
    nx, ny, nz = labels.shape
    gx, gy, gz = grid.voxels.shape
    votes = np.zeros(len(weight), np.int64)
    # Close to the cell's faces, so that no surface slips between samples.
    offsets = np.array([0.05, 0.35, 0.65, 0.95]) * size
    a, b = np.zeros(16, np.int64), np.zeros(16, np.int64)
    for i in range(nx):
        for j in range(ny):
            inside = True
            for s in range(16):
                x = lower[0] + i * size + offsets[s >> 2]
                y = lower[1] + j * size + offsets[s & 3]
                a[s] = int(
                    np.floor(
                        (
                            ego2world[0, 0] * x
                            + ego2world[0, 1] * y
                            + ego2world[0, 3]
                            - grid.lower[0]
                        )
                        / grid.size
                    )
                )
                b[s] = int(
                    np.floor(
                        (
                            ego2world[1, 0] * x
                            + ego2world[1, 1] * y
                            + ego2world[1, 3]
                            - grid.lower[1]
                        )
                        / grid.size
                    )
                )
                inside &= 0 <= a[s] < gx and 0 <= b[s] < gy
            if not inside:
                continue
            for k in range(nz):
                votes[:] = 0
                for half in range(2):
                    z = lower[2] + (k + 0.25 + 0.5 * half) * size
                    c = int(np.floor((z + ego2world[2, 3] - grid.lower[2]) / grid.size))
                    if not 0 <= c < gz or grid.clearance[a[0] >> 2, b[0] >> 2, c] > 1:
                        continue  # the whole layer lies in empty bricks
                    for s in range(16):
                        material = grid.voxels[a[s], b[s], c]
                        if material:
                            votes[occ3d[material]] += 1
                if votes.any():
                    for label in range(len(weight)):
                        score = votes[label] / 32 * weight[label]
                        if score > scores[i, j, k]:
                            scores[i, j, k] = score
                            labels[i, j, k] = label


@njit(cache=True)
def _object_labels(objects, occ3d, world2ego, lower, size, weight, labels, scores):
    """Stamps objects over ``labels`` where their score is the larger."""
    nx, ny, nz = labels.shape
    # Eight samples per model voxel, close to its corners.
    volume = (objects.size / size) ** 3 / 8
    for o in range(len(objects.radius)):
        cx = (
            world2ego[0, 0] * objects.centre[o, 0]
            + world2ego[0, 1] * objects.centre[o, 1]
            + world2ego[0, 3]
        )
        cy = (
            world2ego[1, 0] * objects.centre[o, 0]
            + world2ego[1, 1] * objects.centre[o, 1]
            + world2ego[1, 3]
        )
        cz = objects.centre[o, 2] + world2ego[2, 3]
        cos = world2ego[0, 0] * objects.heading[o, 0] + world2ego[0, 1] * objects.heading[o, 1]
        sin = world2ego[1, 0] * objects.heading[o, 0] + world2ego[1, 1] * objects.heading[o, 1]
        radius = objects.radius[o]
        # Window of cells around the object.
        i0 = max(0, int((cx - radius - lower[0]) / size))
        j0 = max(0, int((cy - radius - lower[1]) / size))
        i1 = min(nx, int((cx + radius - lower[0]) / size) + 1)
        j1 = min(ny, int((cy + radius - lower[1]) / size) + 1)
        if i0 >= i1 or j0 >= j1 or cx + radius < lower[0] or (cy + radius < lower[1]):
            continue
        votes = np.zeros((i1 - i0, j1 - j0, nz), np.int64)
        sx, sy, sz = objects.shape[o, 0], objects.shape[o, 1], objects.shape[o, 2]
        for n in range(sx * sy * sz):
            if objects.parts[objects.offset[o] + n] == 0:
                continue
            for s in range(8):
                u = n // (sy * sz) + 0.1 + 0.8 * (s >> 2) - 0.5 * sx
                v = n // sz % sy + 0.1 + 0.8 * ((s >> 1) & 1) - 0.5 * sy
                w = n % sz + 0.1 + 0.8 * (s & 1) - 0.5 * sz
                x = cx + (cos * u - sin * v) * objects.size
                y = cy + (sin * u + cos * v) * objects.size
                z = cz + w * objects.size
                i = int(np.floor((x - lower[0]) / size)) - i0
                j = int(np.floor((y - lower[1]) / size)) - j0
                k = int(np.floor((z - lower[2]) / size))
                if 0 <= i < i1 - i0 and 0 <= j < j1 - j0 and 0 <= k < nz:
                    votes[i, j, k] += 1
        label = occ3d[o]
        for i in range(i1 - i0):
            for j in range(j1 - j0):
                for k in range(nz):
                    score = votes[i, j, k] * volume * weight[label]
                    if score > scores[i0 + i, j0 + j, k]:
                        scores[i0 + i, j0 + j, k] = score
                        labels[i0 + i, j0 + j, k] = label


def occupancy_labels(
    street: Street, traffic: Traffic, surfaces: Surfaces, ego2world: np.ndarray, time: float
) -> np.ndarray:
    """Occ3D labels around the ego vehicle at a time in seconds.

    Returns:
        Classes, 17 = free, shape (X, Y, Z) uint8, in the ego frame.
    """
    labels = np.full(GRID_SHAPE, FREE, np.uint8)
    scores = np.zeros(GRID_SHAPE, np.float32)
    _static_labels(
        street.grid,
        _TO_OCC3D[surfaces.lidarseg],
        ego2world,
        _LOWER,
        VOXEL_SIZE,
        _WEIGHT,
        labels,
        scores,
    )
    _object_labels(
        traffic.objects(time),
        _TO_OCC3D[traffic.lidarseg],
        np.linalg.inv(ego2world),
        _LOWER,
        VOXEL_SIZE,
        _WEIGHT,
        labels,
        scores,
    )
    return labels


@njit(cache=True)
def _mark(start, ends, observed):
    """Marks the cells that straight lines pass; positions in cell units."""
    nx, ny, nz = observed.shape
    for r in range(len(ends)):
        dx = ends[r, 0] - start[0]
        dy = ends[r, 1] - start[1]
        dz = ends[r, 2] - start[2]
        i, j, k = int(start[0]), int(start[1]), int(start[2])
        last_i = int(np.floor(ends[r, 0]))
        last_j = int(np.floor(ends[r, 1]))
        last_k = int(np.floor(ends[r, 2]))
        step_i, step_j, step_k = (1 if dx > 0 else -1, 1 if dy > 0 else -1, 1 if dz > 0 else -1)
        ix = 1 / dx if dx != 0 else 1e12
        iy = 1 / dy if dy != 0 else 1e12
        iz = 1 / dz if dz != 0 else 1e12
        tx = (i + (dx > 0) - start[0]) * ix if dx != 0 else 1e12
        ty = (j + (dy > 0) - start[1]) * iy if dy != 0 else 1e12
        tz = (k + (dz > 0) - start[2]) * iz if dz != 0 else 1e12
        while 0 <= i < nx and 0 <= j < ny and 0 <= k < nz:
            observed[i, j, k] = 1
            if i == last_i and j == last_j and k == last_k:
                break
            if min(tx, ty, tz) > 1:
                break
            if tx <= ty and tx <= tz:
                i += step_i
                tx += abs(ix)
            elif ty <= tz:
                j += step_j
                ty += abs(iy)
            else:
                k += step_k
                tz += abs(iz)


def _cells(points: np.ndarray) -> np.ndarray:
    return (points - _LOWER) / VOXEL_SIZE


def beam_mask(origin: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Cells that the LiDAR beams of a sweep passed or hit.

    Args:
        origin: LiDAR centre in the key ego frame, shape (3,).
        points: Returns in the key ego frame, shape (P, 3).

    Returns:
        0 or 1, shape (X, Y, Z) uint8.
    """
    observed = np.zeros(GRID_SHAPE, np.uint8)
    _mark(_cells(origin), _cells(points), observed)
    return observed


def camera_mask(
    labels: np.ndarray,
    beams: np.ndarray,
    cameras: List[Camera],
    image_size: Tuple[int, int],
    grid: StaticGrid,
    objects: ObjectArrays,
    ego2world: np.ndarray,
) -> np.ndarray:
    """Cells that LiDAR and cameras observe, by the rule of Occ3D.

    Occ3D (arXiv 2304.14365, section on visibility) joins each camera with
    the centre of each occupied voxel. What such a ray passes up to the first
    surface is observed by the camera, and what is observed by LiDAR too is in
    the mask: an occupied voxel since it holds a LiDAR point by construction,
    a free one only if a beam crossed it. There are no rays into the sky.

    Our reading, where the paper is silent: rays end at surfaces of the scene,
    which are finer than a voxel (on a real label half of the mask's occupied
    voxels lie behind other occupied voxels), and only the keyframe's own
    sweep clears free voxels (all sweeps of a drive would clear far more than
    real masks show).

    Args:
        labels: Occ3D labels, shape (X, Y, Z).
        beams: ``beam_mask`` of the keyframe's sweep.
        cameras: Cameras with ``cam2ego`` to the *key* ego frame.
        image_size: Width and height in pixels.
        grid, objects: The scene's surfaces at the time of the keyframe.
        ego2world: Key ego pose, shape (4, 4).

    Returns:
        0 or 1, shape (X, Y, Z) uint8.
    """
    observed = np.zeros(labels.shape, np.uint8)
    occupied = labels != FREE
    targets = (np.argwhere(occupied) + 0.5) * VOXEL_SIZE + _LOWER
    reach = np.linalg.norm(_UPPER - _LOWER)
    near = np.linalg.norm(objects.centre - ego2world[:3, 3], axis=1) < reach + objects.radius
    active = np.flatnonzero(near)
    for camera in cameras:
        origin = camera.cam2ego[:3, 3]
        rays = _in_view(targets, camera, image_size) - origin
        length = np.linalg.norm(rays, axis=1)
        rays /= length[:, None]
        hits = cast_rays(
            grid,
            objects,
            active,
            ego2world[:3, :3] @ origin + ego2world[:3, 3],
            rays @ ego2world[:3, :3].T,
            reach,
        )
        length = np.minimum(length, hits.distance + _INTO_SURFACE)
        _mark(_cells(origin), _cells(origin + rays * length[:, None]), observed)
    return observed * (occupied | (beams == 1))


def _in_view(points: np.ndarray, camera: Camera, image_size: Tuple[int, int]) -> np.ndarray:
    """Those of the points (P, 3) that lie in a camera's image."""
    width, height = image_size
    local = (points - camera.cam2ego[:3, 3]) @ camera.cam2ego[:3, :3]
    u, v, depth = (local @ camera.cam2img.T).T
    return points[(depth > 0) & (u >= 0) & (u < width * depth) & (v >= 0) & (v < height * depth)]
