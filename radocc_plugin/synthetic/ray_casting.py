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


@njit(cache=True)
def brick_clearance(voxels):
    """``StaticGrid.clearance`` of voxels (X, Y, Z), X and Y multiples of 4.

    Two sweeps of a 3x3x3 chamfer mask are exact for the Chebyshev distance.
    """
    nx, ny, nz = voxels.shape
    bx, by = nx // BRICK, ny // BRICK
    clearance = np.full((bx, by, nz), 255, np.uint8)
    for i in range(nx):
        for j in range(ny):
            for k in range(nz):
                if voxels[i, j, k]:
                    clearance[i >> _SHIFT, j >> _SHIFT, k] = 0
    for sweep in range(2):
        step = 1 if sweep == 0 else -1
        for a in range(bx):
            i = a if sweep == 0 else bx - 1 - a
            for b in range(by):
                j = b if sweep == 0 else by - 1 - b
                for c in range(nz):
                    k = c if sweep == 0 else nz - 1 - c
                    best = int(clearance[i, j, k])
                    # The 13 neighbours that this sweep has visited already.
                    for n in range(13):
                        u = i + step * (n // 9 - 1)
                        v = j + step * (n // 3 % 3 - 1)
                        w = k + step * (n % 3 - 1)
                        if 0 <= u < bx and 0 <= v < by and 0 <= w < nz:
                            best = min(best, int(clearance[u, v, w]) + 1)
                    clearance[i, j, k] = best
    return clearance


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
def _passes(centre, radius, o, ox, oy, oz, dx, dy, dz):
    """Whether a ray passes the bounding sphere of an object."""
    rx, ry, rz = centre[o, 0] - ox, centre[o, 1] - oy, centre[o, 2] - oz
    along = rx * dx + ry * dy + rz * dz
    apart = rx * rx + ry * ry + rz * rz - along * along
    return along > -radius[o] and apart < radius[o] * radius[o]


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
    vx, vy, vz = (cos * dx + sin * dy) / size, (cos * dy -
                                                sin * dx) / size, dz / size
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


@njit(cache=True)
def is_occluded(grid, objects, active, ox, oy, oz, dx, dy, dz, reach):
    """Whether a ray meets anything within ``reach``."""
    if _static_hit(grid, ox, oy, oz, dx, dy, dz, reach)[0] < reach:
        return True
    centre, radius = objects.centre, objects.radius
    for o in active:
        if _passes(centre, radius, o, ox, oy, oz, dx, dy, dz):
            if _object_hit(objects, o, ox, oy, oz, dx, dy, dz)[0] < reach:
                return True
    return False


@njit(cache=True)
def cast_rays(grid, objects, active, origin, directions, reach):
    """First hits of rays that share an origin.

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
    # A ray passes the bounding sphere of an object if the projection of the
    # centre on it, squared, exceeds this limit.
    offset = objects.centre[active] - origin
    limit = (offset**2).sum(1) - objects.radius[active]**2
    for r in range(count):
        dx, dy, dz = directions[r, 0], directions[r, 1], directions[r, 2]
        best, axis, material = _static_hit(grid, ox, oy, oz, dx, dy, dz, reach)
        owner = -1
        for a in range(len(active)):
            along = (offset[a, 0] * dx + offset[a, 1] * dy + offset[a, 2] * dz)
            if along * along < limit[a] or (along < 0 and limit[a] > 0):
                continue
            o = active[a]
            t, object_axis, part = _object_hit(objects, o, ox, oy, oz, dx, dy,
                                               dz)
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
