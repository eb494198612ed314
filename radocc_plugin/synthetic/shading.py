"""Colours of what camera rays meet: textures, sun, sky and haze.

R rays; all colours are linear RGB where 1 is a white sheet in full sun.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from radocc_plugin.synthetic.materials import FACADE, FOLIAGE, GRASS, PAINTED, TILES, linear
from radocc_plugin.synthetic.objects import GLASS, HEADLIGHT, TAILLIGHT
from radocc_plugin.synthetic.ray_casting import is_occluded

# BARE, WHITE, YELLOW, PATCH, IRON, BIKE_RED of ``world``; BARE is not used.
PAINT_COLOURS = linear(
    [(0, 0, 0), (214, 214, 208), (206, 168, 60), (66, 66, 70), (54, 50, 48), (128, 74, 66)]
)
_SHADOW_REACH = 45.0


class Lighting(NamedTuple):
    """Light and air of one scene.

    sun: Unit vector towards the sun, shape (3,).
    sun_colour: Sunlight on a surface that faces it, shape (3,).
    zenith, horizon: Sky colours, shape (3,) each.
    haze: Distance in metres over which contrast falls to 1/e.
    clouds: Share of the sky under clouds, 0..1.
    lit_windows: Share of the windows that are lit, 0..1.
    seed: Seed of all textures.
    """

    sun: np.ndarray
    sun_colour: np.ndarray
    zenith: np.ndarray
    horizon: np.ndarray
    haze: float
    clouds: float
    lit_windows: float
    seed: int


# name: (sun strength, sun tint, zenith, horizon, clouds, lit windows)
_WEATHERS = {
    'sunny': (2.3, (1.0, 0.95, 0.86), (78, 124, 196), (186, 206, 226), 0.3, 0.0),
    'overcast': (0.25, (1.0, 1.0, 1.0), (188, 194, 202), (212, 214, 216), 0.9, 0.1),
    'evening': (1.3, (1.0, 0.66, 0.40), (92, 110, 158), (226, 176, 138), 0.4, 0.3),
}


def make_lighting(rng: np.random.Generator) -> Lighting:
    """Light and air of a random day."""
    name = str(rng.choice(list(_WEATHERS), p=[0.55, 0.27, 0.18]))
    strength, tint, zenith, horizon, clouds, lit = _WEATHERS[name]
    lowest, highest = (9, 22) if name == 'evening' else (25, 65)
    elevation = np.radians(rng.uniform(lowest, highest))
    azimuth = rng.uniform(0, 2 * np.pi)
    sun = np.array(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ]
    )
    return Lighting(
        sun,
        strength * rng.uniform(0.85, 1.15) * np.array(tint),
        linear(zenith).astype(np.float64),
        linear(horizon).astype(np.float64),
        float(rng.uniform(90, 400)),
        clouds * float(rng.uniform(0.6, 1.1)),
        lit,
        int(rng.integers(1 << 30)),
    )


@njit(cache=True)
def _hash(x, y, z, seed):
    """Pseudo-random number in [0, 1) of an integer cell."""
    h = np.uint32(x * 73856093) ^ np.uint32(y * 19349663)
    h = h ^ np.uint32(z * 83492791) ^ np.uint32(seed)
    h = np.uint32((h ^ (h >> np.uint32(15))) * np.uint32(2246822519))
    h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(3266489917))
    h = np.uint32(h ^ (h >> np.uint32(16)))
    return (h & np.uint32(0xFFFFFF)) / 16777216.0


@njit(cache=True)
def _speckle(x, y, z, cell, seed):
    return (
        _hash(int(np.floor(x / cell)), int(np.floor(y / cell)), int(np.floor(z / cell)), seed) - 0.5
    )


@njit(cache=True)
def _smooth(u, v, seed):
    """Value noise in [0, 1) that varies over one unit."""
    i, j = int(np.floor(u)), int(np.floor(v))
    a, b = u - i, v - j
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    low = _hash(i, j, 0, seed) * (1 - a) + _hash(i + 1, j, 0, seed) * a
    high = _hash(i, j + 1, 0, seed) * (1 - a) + _hash(i + 1, j + 1, 0, seed) * a
    return low * (1 - b) + high * b


@njit(cache=True)
def _sky(dx, dy, dz, light, out):
    """Sky with clouds, and a far skyline over the horizon."""
    up = max(dz, 0.0)
    blend = min(1.0, up * 2.5) ** 0.6
    cloud = 0.0
    if up > 0.02:
        u, v = dx / (up + 0.15), dy / (up + 0.15)
        field = (
            0.55 * _smooth(u * 1.3, v * 1.3, light.seed)
            + 0.3 * _smooth(u * 3.1, v * 3.1, light.seed + 1)
            + 0.15 * _smooth(u * 7.3, v * 7.3, light.seed + 2)
        )
        cloud = min(1.0, max(0.0, (field - 0.75 + 0.5 * light.clouds) * 4.0))
        cloud *= min(1.0, up * 6.0)
    for c in range(3):
        clear = light.horizon[c] * (1 - blend) + light.zenith[c] * blend
        out[c] = clear * (1 - cloud) + cloud * (0.25 + 0.85 * light.horizon[c])
    azimuth = np.arctan2(dy, dx)
    block = int(np.floor(azimuth * 40))
    roof = 0.02 + 0.09 * _hash(block, 7, 0, light.seed) ** 2
    roof = max(roof, 0.05 * _smooth(azimuth * 60, 3.5, light.seed))
    if dz < roof:
        shade = 0.5 + 0.3 * _hash(block, 9, 0, light.seed)
        if dz < 0:
            shade = 0.45
        for c in range(3):
            out[c] = 0.35 * shade * (0.3 + light.horizon[c]) * 0.5 + 0.5 * light.horizon[c]


@njit(cache=True)
def _window(x, y, z, nx, ny, material, light, distance):
    """Brightness factor of a wall: 1 on plaster, less on glass; < 0: lit.

    The layout of windows is drawn from the material, so that neighbouring
    houses differ.
    """
    along = y if abs(nx) > abs(ny) else x
    seed = light.seed + material * 7
    pitch = 1.8 + 1.6 * _hash(1, 0, 0, seed)
    storey = 2.8 + 0.6 * _hash(2, 0, 0, seed)
    wide = 0.45 + 0.3 * _hash(3, 0, 0, seed)
    tall = 0.45 + 0.2 * _hash(4, 0, 0, seed)
    u, w = along / pitch, (z - 0.15) / storey
    column, floor = int(np.floor(u)), int(np.floor(w))
    u, w = u - column, w - floor
    if floor == 0:  # shop windows
        wide, tall = 0.85, 0.72
    margin = 0.5 * (1 - wide)
    if u < margin or u > 1 - margin or w < 0.2 or w > 0.2 + tall:
        # A brick course pattern close by, a darker base.
        course = 1.0
        if distance < 25:
            course += 0.12 * _speckle(along, z * 3, 0.0, 0.3, seed)
        return course * (0.8 if z < 0.6 else 1.0)
    if abs(u - 0.5) < 0.03 and distance < 30:
        return 0.9
    kind = _hash(column, floor, 5, seed)
    if kind < light.lit_windows:
        return -1.0
    return 0.12 + 0.35 * kind * kind


@njit(cache=True)
def _static_albedo(
    x,
    y,
    z,
    nx,
    ny,
    nz,
    distance,
    material,
    surfaces,
    paint,
    paint_lower,
    paint_size,
    paint_colours,
    light,
    out,
):
    """Albedo of a static voxel; returns how much of the sky it mirrors."""
    texture = surfaces.texture[material]
    for c in range(3):
        out[c] = surfaces.colour[material, c]
    fine = 1.0 / (1.0 + distance / 12.0)
    gain = 1.0 + 0.25 * (_smooth(x / 3.0, y / 3.0 + z, light.seed + 5) - 0.5)
    mirror = 0.0
    if texture == PAINTED and nz > 0.5:
        u = int((x - paint_lower[0]) / paint_size)
        v = int((y - paint_lower[1]) / paint_size)
        code = 0
        if 0 <= u < paint.shape[0] and 0 <= v < paint.shape[1]:
            code = paint[u, v]
        if code:
            wear = 0.75 + 0.25 * _smooth(x * 2, y * 2, light.seed + 6)
            for c in range(3):
                out[c] = paint_colours[code, c] * wear + out[c] * (1 - wear)
        gain += 0.5 * fine * _speckle(x, y, z, 0.04, light.seed)
        gain += 0.15 * (_smooth(x / 15, y * 0.8, light.seed + 8) - 0.5)
    elif texture == TILES:
        gain += 0.25 * fine * _speckle(x, y, z, 0.5, light.seed)
        if distance < 20 and (x % 0.5 < 0.03 or y % 0.5 < 0.03):
            gain *= 0.75
    elif texture == GRASS:
        gain += 0.9 * fine * _speckle(x, y, z, 0.07, light.seed)
        gain += 0.6 * (_smooth(x * 1.1, y * 1.1, light.seed + 3) - 0.5)
    elif texture == FOLIAGE:
        gain += 1.1 * _speckle(x, y, z, 0.1, light.seed)
        gain += 0.5 * _speckle(x, y, z, 0.4, light.seed + 4)
    elif texture == FACADE and abs(nz) < 0.5:
        factor = _window(x, y, z, nx, ny, material, light, distance)
        if factor < 0:
            out[0], out[1], out[2] = 1.5, 1.15, 0.65
            return 0.0
        gain *= factor
        mirror = 0.35 if factor < 0.5 else 0.0
    else:
        gain += 0.2 * fine * _speckle(x, y, z, 0.08, light.seed)
    for c in range(3):
        out[c] *= max(gain, 0.15)
    return mirror


@njit(cache=True)
def shade(
    hits,
    origin,
    directions,
    grid,
    objects,
    shadows,
    surfaces,
    palette,
    paint,
    paint_lower,
    paint_size,
    paint_colours,
    light,
):
    """Radiance that arrives along camera rays.

    Args:
        hits: ``Hits`` of the rays.
        origin: Camera centre in the world frame, shape (3,).
        directions: Unit directions, shape (R, 3).
        grid, objects: As for ``cast_rays``.
        shadows: ``Shadows`` of the objects.
        surfaces: ``Surfaces`` of the static materials.
        palette: Colours of the objects' parts, shape (O, 8, 3).
        paint, paint_lower, paint_size: Raster of the road's paint.
        paint_colours: Colour of each paint code.
        light: ``Lighting``.

    Returns:
        Linear RGB, shape (R, 3) float32.
    """
    image = np.empty((len(directions), 3), np.float32)
    albedo, sky = np.empty(3), np.empty(3)
    sx, sy, sz = light.sun[0], light.sun[1], light.sun[2]
    for r in range(len(directions)):
        dx, dy, dz = directions[r, 0], directions[r, 1], directions[r, 2]
        distance = float(hits.distance[r])
        if not np.isfinite(distance):
            _sky(dx, dy, dz, light, sky)
            image[r, 0], image[r, 1], image[r, 2] = sky[0], sky[1], sky[2]
            continue
        x, y = origin[0] + distance * dx, origin[1] + distance * dy
        z = origin[2] + distance * dz
        nx, ny, nz = (float(hits.normal[r, 0]), float(hits.normal[r, 1]), float(hits.normal[r, 2]))
        owner, material = hits.instance[r], hits.material[r]
        glow = 0.0
        if owner < 0:
            mirror = _static_albedo(
                x,
                y,
                z,
                nx,
                ny,
                nz,
                distance,
                material,
                surfaces,
                paint,
                paint_lower,
                paint_size,
                paint_colours,
                light,
                albedo,
            )
        else:
            gain = 1 + 0.08 * _speckle(x, y, z, 0.05, light.seed)
            for c in range(3):
                albedo[c] = palette[owner, material, c] * gain
            mirror = 0.4 if material == GLASS else 0.04
            if material == HEADLIGHT or material == TAILLIGHT:
                glow = 0.3
        facing = nx * sx + ny * sy + nz * sz
        # Leaves let light through and face in all directions.
        leaf = owner < 0 and surfaces.texture[material] == FOLIAGE
        if leaf:
            facing = 0.35 + 0.65 * max(facing, 0.0)
        if facing > 0 and is_occluded(
            grid, objects, shadows, x + 0.02 * nx, y + 0.02 * ny, z + 0.02 * nz, _SHADOW_REACH
        ):
            facing = 0.3 * facing if leaf else 0.0
        open_sky = 0.55 + 0.45 * nz if nz > -0.5 else 0.3
        # Low parts of things see less of the sky; a cheap contact shadow.
        if abs(nz) < 0.5:
            open_sky *= 0.7 + 0.3 * min(1.0, max(z + 0.05, 0.0) / 1.2)
        if mirror > 0.0:
            along = 2 * (dx * nx + dy * ny + dz * nz)
            _sky(dx - along * nx, dy - along * ny, dz - along * nz, light, sky)
        blend = 1 - np.exp(-distance / light.haze)
        for c in range(3):
            ambient = 0.5 * (light.zenith[c] + light.horizon[c]) * open_sky
            lit = albedo[c] * (
                0.75 * ambient + 0.04 + glow + light.sun_colour[c] * max(facing, 0.0)
            )
            lit = lit * (1 - mirror) + mirror * sky[c]
            image[r, c] = lit * (1 - blend) + blend * light.horizon[c]
    return image
