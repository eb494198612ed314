"""Label space, surfaces and colours of the synthetic world."""

from typing import NamedTuple, Tuple

import numpy as np

# nuScenes-lidarseg categories in the order of their index.
CATEGORIES: Tuple[str, ...] = (
    'noise',
    'animal',
    'human.pedestrian.adult',
    'human.pedestrian.child',
    'human.pedestrian.construction_worker',
    'human.pedestrian.personal_mobility',
    'human.pedestrian.police_officer',
    'human.pedestrian.stroller',
    'human.pedestrian.wheelchair',
    'movable_object.barrier',
    'movable_object.debris',
    'movable_object.pushable_pullable',
    'movable_object.trafficcone',
    'static_object.bicycle_rack',
    'vehicle.bicycle',
    'vehicle.bus.bendy',
    'vehicle.bus.rigid',
    'vehicle.car',
    'vehicle.construction',
    'vehicle.emergency.ambulance',
    'vehicle.emergency.police',
    'vehicle.motorcycle',
    'vehicle.trailer',
    'vehicle.truck',
    'flat.driveable_surface',
    'flat.other',
    'flat.sidewalk',
    'flat.terrain',
    'static.manmade',
    'static.other',
    'static.vegetation',
    'vehicle.ego',
)
LIDARSEG_INDEX = {name: index for index, name in enumerate(CATEGORIES)}

# How a surface is textured when it is seen by a camera.
PLAIN, PAINTED, TILES, GRASS, FACADE, FOLIAGE = range(6)

# Materials of static voxels; 0 is empty.
ROAD, SIDEWALK, PLAZA, TERRAIN, DIRT, TRUNK, METAL, CONCRETE, ROOF, SIGN = range(1, 11)
FOLIAGES = tuple(range(20, 28))
FACADES = tuple(range(30, 62))
NUM_MATERIALS = 64


class Surfaces(NamedTuple):
    """Per-scene look of each static material, indexed by material.

    colour: Linear RGB albedo, shape (M, 3).
    texture: One of the texture constants, shape (M,).
    lidarseg: nuScenes-lidarseg index, shape (M,).
    reflectivity: Mean LiDAR intensity, shape (M,).
    """

    colour: np.ndarray
    texture: np.ndarray
    lidarseg: np.ndarray
    reflectivity: np.ndarray


def linear(rgb) -> np.ndarray:
    """Linear light of sRGB colours in [0, 255]."""
    return ((np.asarray(rgb, np.float64) / 255) ** 2.2).astype(np.float32)


_FIXED = {
    # material: (colour, texture, category, reflectivity)
    ROAD: ((92, 92, 95), PAINTED, 'flat.driveable_surface', 8),
    SIDEWALK: ((158, 152, 144), TILES, 'flat.sidewalk', 18),
    PLAZA: ((134, 124, 116), TILES, 'flat.other', 14),
    TERRAIN: ((92, 112, 58), GRASS, 'flat.terrain', 30),
    DIRT: ((128, 108, 80), GRASS, 'flat.terrain', 22),
    TRUNK: ((86, 68, 54), PLAIN, 'static.vegetation', 20),
    METAL: ((96, 98, 100), PLAIN, 'static.manmade', 40),
    CONCRETE: ((168, 164, 156), PLAIN, 'static.manmade', 25),
    ROOF: ((110, 84, 74), PLAIN, 'static.manmade', 20),
    SIGN: ((40, 80, 170), PLAIN, 'static.manmade', 160),
}
_FACADE_COLOURS = (
    (186, 170, 146),
    (150, 92, 74),
    (198, 190, 178),
    (128, 122, 118),
    (172, 140, 104),
    (112, 118, 128),
    (208, 200, 180),
    (140, 108, 92),
    (96, 84, 80),
    (178, 160, 160),
)


def make_surfaces(rng: np.random.Generator) -> Surfaces:
    """Surfaces of one scene; facades, foliage and tints differ by scene."""
    colour = np.zeros((NUM_MATERIALS, 3), np.float32)
    texture = np.zeros(NUM_MATERIALS, np.uint8)
    lidarseg = np.zeros(NUM_MATERIALS, np.uint8)
    reflectivity = np.zeros(NUM_MATERIALS, np.float32)

    def define(material, rgb, kind, category, mean_intensity):
        tinted = np.asarray(rgb) * rng.uniform(0.85, 1.12)
        tinted = tinted * rng.uniform(0.97, 1.03, 3)
        colour[material] = linear(np.clip(tinted, 0, 255))
        texture[material] = kind
        lidarseg[material] = LIDARSEG_INDEX[category]
        reflectivity[material] = mean_intensity

    for material, values in _FIXED.items():
        define(material, *values)
    season = np.array([(58, 84, 40), (76, 98, 44), (110, 104, 42), (48, 74, 50)])
    leaf = season[rng.integers(len(season))]
    for material in FOLIAGES:
        define(material, leaf * rng.uniform(0.75, 1.2), FOLIAGE, 'static.vegetation', 25)
    for material in FACADES:
        rgb = _FACADE_COLOURS[rng.integers(len(_FACADE_COLOURS))]
        define(material, rgb, FACADE, 'static.manmade', 30)
    return Surfaces(colour, texture, lidarseg, reflectivity)
