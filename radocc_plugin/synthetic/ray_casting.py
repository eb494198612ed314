"""Ray casting through the static voxels and the objects of a scene.

R rays, O objects. Lengths in metres, everything in the scene's world frame,
ray directions have unit length.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

# A brick, the unit of empty-space skipping, is 4 x 4 x 1 voxels: flat, since
# most rays of a street run low over the ground.
BRICK = 4
_SHIFT = 2
_EPSILON = 1e-5
# Rays that are checked against the objects together.
_BUNDLE = 32


class StaticGrid(NamedTuple):
    """The immovable part of a scene.

    voxels: Material of each voxel, 0 = empty, shape (X, Y, Z) uint8.
    clearance: Chebyshev distance of each brick to the nearest brick that is
        not empty, in bricks, shape (X / 4, Y / 4, Z) uint8.
    lower: Corner of voxel (0, 0, 0), shape (3,).
    size: Edge of a voxel.
    """

    voxels: np.ndarray
    clearance: np.ndarray
    lower: np.ndarray
    size: float


class ObjectArrays(NamedTuple):
    """Voxel models of all objects, at their poses at one time.

    parts: Part ids of all models one after the other, 0 = empty, uint8.
    offset: First voxel of each object in ``parts``, shape (O,).
    shape: Voxels along the object's length, width and height, shape (O, 3).
    size: Edge of a model voxel.
    centre: Centre of the bounding box, shape (O, 3).
    heading: Cosine and sine of the yaw, shape (O, 2).
    radius: Radius of the bounding sphere, shape (O,).
    """

    parts: np.ndarray
    offset: np.ndarray
    shape: np.ndarray
    size: float
    centre: np.ndarray
    heading: np.ndarray
    radius: np.ndarray


class Hits(NamedTuple):
    """What each ray meets first.

    distance: Metres along the ray, inf where nothing is met, shape (R,).
    material: Static material, or part id of an object, shape (R,) uint8.
    instance: Index of the object that is met, -1 for none, shape (R,).
    normal: Outward face normal, shape (R, 3).
    touched: Rays that would meet each object were it alone, shape (O,).
    """

    distance: np.ndarray
    material: np.ndarray
    instance: np.ndarray
    normal: np.ndarray
    touched: np.ndarray


def brick_clearance(voxels: np.ndarray) -> np.ndarray:
    """``StaticGrid.clearance`` of voxels (X, Y, Z), X and Y multiples of 4.

    Axis by axis: along an axis, the distance grows by one a step, and each
    step reaches one further along the axes before.
    """
    nx, ny, nz = voxels.shape
    columns = voxels.reshape(nx // BRICK, BRICK, -1).max(1)
    full = columns.reshape(-1, ny // BRICK, BRICK, nz).max(2) > 0
    clearance = np.where(full, 0, 255).astype(np.uint8)
    for axis in (2, 1, 0):
        layers = np.moveaxis(clearance, axis, 0)
        for order in (layers, layers[::-1]):
            for before, layer in zip(order, order[1:]):
                reached = before
                for other in range(axis, 2):  # the axes that are done
                    reached = _least_of_three(reached, other)
                # 255 stands for anything farther
                np.minimum(layer, np.minimum(reached, 254) + 1, out=layer)
    return clearance


def _least_of_three(values: np.ndarray, axis: int) -> np.ndarray:
    """Least of each value and its two neighbours along an axis."""
    least = values.copy()
    result, values = (np.moveaxis(v, axis, 0) for v in (least, values))
    np.minimum(result[1:], values[:-1], out=result[1:])
    np.minimum(result[:-1], values[1:], out=result[:-1])
    return least


@njit(cache=True)
def _inverse(value):
    if abs(value) > 1e-12:
        return 1.0 / value
    return 1e12


@njit(cache=True)
def _interval(position, inverse, extent):
    """Ray parameters between which one axis lies in [0, extent]."""
    a = -position * inverse
    b = (extent - position) * inverse
    return min(a, b), max(a, b)


@njit(cache=True)
def _static_hit(grid, ox, oy, oz, dx, dy, dz, reach):
    """Distance (inf for none), axis of the face and material."""
    px = (ox - grid.lower[0]) / grid.size
    py = (oy - grid.lower[1]) / grid.size
    pz = (oz - grid.lower[2]) / grid.size
    vx, vy, vz = dx / grid.size, dy / grid.size, dz / grid.size
    ix, iy, iz = _inverse(vx), _inverse(vy), _inverse(vz)
    nx, ny, nz = grid.voxels.shape
    x0, x1 = _interval(px, ix, nx)
    y0, y1 = _interval(py, iy, ny)
    z0, z1 = _interval(pz, iz, nz)
    end = min(min(x1, y1), min(z1, reach))
    t = max(max(x0, y0), max(z0, 0.0))
    axis = 0 if t == x0 else (1 if t == y0 else 2)
    t += _EPSILON
    while t < end:
        i, j, k = int(px + t * vx), int(py + t * vy), int(pz + t * vz)
        if i >= nx or j >= ny or k >= nz:
            break
        empty = int(grid.clearance[i >> _SHIFT, j >> _SHIFT, k])
        if empty == 0:
            material = grid.voxels[i, j, k]
            if material:
                return t, axis, material
            tx = (i + (vx > 0) - px) * ix
            ty = (j + (vy > 0) - py) * iy
            tz = (k + (vz > 0) - pz) * iz
        else:
            # Leave the cube of empty bricks in one step.
            a, b = i >> _SHIFT, j >> _SHIFT
            tx = ((a + empty if vx > 0 else a - empty + 1) * BRICK - px) * ix
            ty = ((b + empty if vy > 0 else b - empty + 1) * BRICK - py) * iy
            tz = ((k + empty if vz > 0 else k - empty + 1) - pz) * iz
        if tx <= ty and tx <= tz:
            t, axis = tx, 0
        elif ty <= tz:
            t, axis = ty, 1
        else:
            t, axis = tz, 2
        t += _EPSILON
    return np.inf, 0, np.uint8(0)


@njit(cache=True)
def _object_hit(objects, o, ox, oy, oz, dx, dy, dz):
    """Distance (inf for none), axis of the face (object frame) and part."""
    rx = objects.centre[o, 0] - ox
    ry = objects.centre[o, 1] - oy
    rz = objects.centre[o, 2] - oz
    cos, sin = objects.heading[o, 0], objects.heading[o, 1]
    size = objects.size
    nx, ny, nz = objects.shape[o, 0], objects.shape[o, 1], objects.shape[o, 2]
    px = 0.5 * nx - (cos * rx + sin * ry) / size
    py = 0.5 * ny - (cos * ry - sin * rx) / size
    pz = 0.5 * nz - rz / size
    vx, vy, vz = (cos * dx + sin * dy) / size, (cos * dy - sin * dx) / size, dz / size
    ix, iy, iz = _inverse(vx), _inverse(vy), _inverse(vz)
    x0, x1 = _interval(px, ix, nx)
    y0, y1 = _interval(py, iy, ny)
    z0, z1 = _interval(pz, iz, nz)
    end = min(min(x1, y1), z1)
    t = max(max(x0, y0), max(z0, 0.0))
    axis = 0 if t == x0 else (1 if t == y0 else 2)
    t += _EPSILON
    while t < end:
        i, j, k = int(px + t * vx), int(py + t * vy), int(pz + t * vz)
        if i >= nx or j >= ny or k >= nz:
            break
        part = objects.parts[objects.offset[o] + (i * ny + j) * nz + k]
        if part:
            return t, axis, part
        tx = (i + (vx > 0) - px) * ix
        ty = (j + (vy > 0) - py) * iy
        tz = (k + (vz > 0) - pz) * iz
        if tx <= ty and tx <= tz:
            t, axis = tx, 0
        elif ty <= tz:
            t, axis = ty, 1
        else:
            t, axis = tz, 2
        t += _EPSILON
    return np.inf, 0, np.uint8(0)


class Shadows(NamedTuple):
    """Objects as seen along parallel rays, in the order of ``u``.

    direction: Unit vector towards the light, shape (3,).
    across: Two unit vectors at right angles to it and each other, (2, 3).
    index: The objects, shape (A,).
    u, v, along: Their centres along ``across`` and ``direction``, (A,).
    widest: Radius of the largest of them.
    """

    direction: np.ndarray
    across: np.ndarray
    index: np.ndarray
    u: np.ndarray
    v: np.ndarray
    along: np.ndarray
    widest: float


def prepare_shadows(objects: ObjectArrays, active: np.ndarray, direction: np.ndarray) -> Shadows:
    """Sorts objects, so that each ray looks at those beside it only."""
    least = np.eye(3)[np.abs(direction).argmin()]
    first = np.cross(direction, least)
    first /= np.linalg.norm(first)
    across = np.stack([first, np.cross(direction, first)])
    u, v = across @ objects.centre[active].T
    order = np.argsort(u)
    index = active[order]
    return Shadows(
        direction,
        across,
        index,
        u[order],
        v[order],
        objects.centre[index] @ direction,
        float(objects.radius[active].max(initial=0.0)),
    )


@njit(cache=True)
def is_occluded(grid, objects, shadows, ox, oy, oz, reach):
    """Whether anything lies within ``reach`` towards the light."""
    dx, dy, dz = (shadows.direction[0], shadows.direction[1], shadows.direction[2])
    if _static_hit(grid, ox, oy, oz, dx, dy, dz, reach)[0] < reach:
        return True
    across = shadows.across
    u = across[0, 0] * ox + across[0, 1] * oy + across[0, 2] * oz
    v = across[1, 0] * ox + across[1, 1] * oy + across[1, 2] * oz
    start = dx * ox + dy * oy + dz * oz
    first = np.searchsorted(shadows.u, u - shadows.widest)
    for n in range(first, len(shadows.u)):
        du = shadows.u[n] - u
        if du > shadows.widest:
            break
        o = shadows.index[n]
        radius = objects.radius[o]
        dv = shadows.v[n] - v
        if (
            du * du + dv * dv < radius * radius
            and shadows.along[n] - start > -radius
            and _object_hit(objects, o, ox, oy, oz, dx, dy, dz)[0] < reach
        ):
            return True
    return False


@njit(cache=True)
def _beside(directions, offset, distance, radius, kept):
    """Objects that a bundle of rays may meet: how many, first in ``kept``.

    They touch the cone around the mean direction that holds all rays.
    """
    axis = np.zeros(3)
    for r in range(len(directions)):
        for c in range(3):
            axis[c] += directions[r, c]
    axis /= max(np.sqrt((axis * axis).sum()), 1e-12)
    cosine = 1.0
    for r in range(len(directions)):
        cosine = min(
            cosine,
            axis[0] * directions[r, 0] + axis[1] * directions[r, 1] + axis[2] * directions[r, 2],
        )
    cosine -= 1e-9  # a single ray has no cone
    sine = np.sqrt(max(0.0, 1 - cosine * cosine))
    count = 0
    for a in range(len(distance)):
        if cosine > 0 and distance[a] > radius[a]:
            half = radius[a] / distance[a]  # sine of half its visual angle
            limit = cosine * np.sqrt(1 - half * half) - sine * half
            along = axis[0] * offset[a, 0] + axis[1] * offset[a, 1] + axis[2] * offset[a, 2]
            if along < limit * distance[a]:
                continue
        kept[count] = a
        count += 1
    return count


@njit(cache=True)
def cast_rays(grid, objects, active, origin, directions, reach):
    """First hits of rays that share an origin.

    It is fastest where rays that follow each other lie close together.

    Args:
        grid: ``StaticGrid``.
        objects: ``ObjectArrays``.
        active: Indices of the objects to look at, shape (A,).
        origin: Start of all rays, shape (3,).
        directions: Unit directions, shape (R, 3).
        reach: Length of the rays.

    Returns:
        ``Hits``.
    """
    count = len(directions)
    distance = np.full(count, np.inf, np.float32)
    materials = np.zeros(count, np.uint8)
    instance = np.full(count, -1, np.int32)
    normal = np.zeros((count, 3), np.float32)
    touched = np.zeros(len(objects.radius), np.int64)
    ox, oy, oz = origin[0], origin[1], origin[2]
    offset = objects.centre[active] - origin
    squared = (offset**2).sum(1)
    apart, radius = np.sqrt(squared), objects.radius[active]
    # A ray passes the bounding sphere of an object if the projection of the
    # centre on it, squared, exceeds this limit.
    limit = squared - radius**2
    kept = np.zeros(len(active), np.int64)
    num_kept = 0
    for r in range(count):
        if r % _BUNDLE == 0:
            num_kept = _beside(directions[r : r + _BUNDLE], offset, apart, radius, kept)
        dx, dy, dz = directions[r, 0], directions[r, 1], directions[r, 2]
        best, axis, material = _static_hit(grid, ox, oy, oz, dx, dy, dz, reach)
        owner = -1
        for n in range(num_kept):
            a = kept[n]
            along = offset[a, 0] * dx + offset[a, 1] * dy + offset[a, 2] * dz
            if along * along < limit[a] or (along < 0 and limit[a] > 0):
                continue
            o = active[a]
            t, object_axis, part = _object_hit(objects, o, ox, oy, oz, dx, dy, dz)
            if t < reach:
                touched[o] += 1
                if t < best:
                    best, axis, material, owner = t, object_axis, part, o
        if best == np.inf:
            continue
        distance[r] = best
        materials[r] = material
        instance[r] = owner
        nx = 1.0 if axis == 0 else 0.0
        ny = 1.0 if axis == 1 else 0.0
        nz = 1.0 if axis == 2 else 0.0
        if owner >= 0:
            cos = objects.heading[owner, 0]
            sin = objects.heading[owner, 1]
            nx, ny = cos * nx - sin * ny, sin * nx + cos * ny
        sign = -1.0 if nx * dx + ny * dy + nz * dz > 0 else 1.0
        normal[r, 0] = sign * nx
        normal[r, 1] = sign * ny
        normal[r, 2] = sign * nz
    return Hits(distance, materials, instance, normal, touched)
