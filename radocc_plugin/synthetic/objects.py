"""Voxel models of vehicles, people and other movable objects.

A model is an array of part ids (length, width, height) with 0.1 m voxels; x
points to its front, y left, z up, and the array fills the bounding box.
"""

from dataclasses import dataclass
from typing import Callable, Dict, Tuple

import numpy as np

from radocc_plugin.synthetic.materials import linear

MODEL_VOXEL = 0.1
BODY, GLASS, TYRE, HEADLIGHT, TAILLIGHT, SECOND, SKIN = range(1, 8)
NUM_PARTS = 8
# Mean LiDAR intensity of each part.
PART_REFLECTIVITY = np.array([0, 32, 4, 6, 70, 90, 30, 22], np.float32)

_CAR_PAINTS = (
    (225, 225, 225),
    (200, 200, 205),
    (24, 24, 26),
    (92, 94, 98),
    (150, 24, 26),
    (30, 52, 120),
    (20, 70, 60),
    (170, 150, 120),
    (60, 62, 68),
    (235, 235, 230),
    (190, 110, 30),
)
_CLOTHES = (
    (30, 40, 80),
    (120, 30, 40),
    (30, 30, 32),
    (170, 170, 165),
    (60, 90, 60),
    (190, 160, 60),
    (90, 60, 110),
    (210, 210, 215),
)


@dataclass(frozen=True)
class Model:
    """One object's looks.

    Args:
        category: nuScenes category name.
        parts: Part ids, shape (length, width, height) uint8, 0 = empty.
        palette: Linear RGB of each part, shape (8, 3) float32.
    """

    category: str
    parts: np.ndarray
    palette: np.ndarray

    @property
    def extent(self) -> np.ndarray:
        """Length, width and height in metres."""
        return np.array(self.parts.shape) * MODEL_VOXEL


def _palette(body, second=(70, 70, 72), skin=(190, 145, 115)) -> np.ndarray:
    return linear(
        [(0, 0, 0), body, (28, 36, 44), (22, 22, 24), (235, 232, 215), (150, 16, 14), second, skin]
    )


def _pick(rng, colours):
    return colours[rng.integers(len(colours))]


def _space(length: float, width: float, height: float):
    """Empty parts and the coordinates of the voxel centres."""
    shape = [max(1, round(v / MODEL_VOXEL)) for v in (length, width, height)]
    axes = [(np.arange(n) + 0.5) * MODEL_VOXEL for n in shape]
    x = (axes[0] - length / 2)[:, None, None]
    y = (axes[1] - width / 2)[None, :, None]
    return np.zeros(shape, np.uint8), x, y, axes[2][None, None, :]


def _fill(parts, mask, part) -> None:
    parts[np.broadcast_to(mask, parts.shape)] = part


def _wheels(parts, x, y, z, positions, radius) -> None:
    side = np.abs(y) > np.abs(y).max() - 0.25
    for position in positions:
        round_ = (x - position) ** 2 + (z - radius) ** 2 < radius**2
        _fill(parts, round_ & side, TYRE)


def _lights(parts, x, y, z, low, high) -> None:
    """Head- and taillights on the outermost voxels of the body."""
    beside = np.abs(y) > np.abs(y).max() * 0.6
    level = (z > low) & (z < high) & beside
    half = np.abs(x).max()
    body = parts == BODY
    parts[body & (x > half - 0.15) & level] = HEADLIGHT
    parts[body & (x < -half + 0.15) & level] = TAILLIGHT


def _car(rng) -> Model:
    length = rng.uniform(4.0, 4.9)
    width = rng.uniform(1.75, 1.95)
    height = rng.choice([1.45, 1.5, 1.7, 1.8])
    parts, x, y, z = _space(length, width, height)
    half, waist = length / 2, 0.58 * height
    rear = -half + rng.choice([0.1, 0.25, 0.8])  # van, hatchback, saloon
    front = half - rng.uniform(1.0, 1.4)
    _fill(parts, (z > 0.22) & (z < waist) & (np.abs(x) < half), BODY)
    slope = (z - waist) / (height - waist)
    cabin = (
        (z >= waist)
        & (x > rear + 0.35 * slope)
        & (x < front - 0.75 * slope)
        & (np.abs(y) < width / 2 - 0.14 * slope)
    )
    _fill(parts, cabin, GLASS)
    roof = cabin & (z > height - 0.15)
    pillar = cabin & (np.abs(x - (rear + front) / 2) < 0.08)
    _fill(parts, roof | pillar, BODY)
    _wheels(parts, x, y, z, (-0.3 * length, 0.31 * length), 0.32)
    _lights(parts, x, y, z, 0.5, waist - 0.05)
    return Model('vehicle.car', parts, _palette(_pick(rng, _CAR_PAINTS)))


def _truck(rng) -> Model:
    length, height = rng.uniform(6.4, 9.0), rng.uniform(2.7, 3.4)
    parts, x, y, z = _space(length, 2.4, height)
    cab = length / 2 - 1.9
    _fill(parts, (z > 0.6) & (x < cab - 0.2), SECOND)
    _fill(parts, (z > 0.4) & (z < 2.5) & (x > cab), BODY)
    _fill(parts, (z > 0.4) & (z < 0.7), TYRE)
    _fill(parts, (z > 1.4) & (z < 2.2) & (x > cab + 0.7), GLASS)
    _wheels(parts, x, y, z, (-0.32 * length, -0.2 * length, cab + 0.9), 0.45)
    _lights(parts, x, y, z, 0.6, 0.95)
    return Model('vehicle.truck', parts, _palette(_pick(rng, _CAR_PAINTS), _pick(rng, _CAR_PAINTS)))


def _bus(rng) -> Model:
    length = rng.uniform(9.5, 12.0)
    parts, x, y, z = _space(length, 2.5, 3.1)
    _fill(parts, z > 0.3, BODY)
    _fill(parts, (z > 0.3) & (z < 1.2), SECOND)
    window = (z > 1.4) & (z < 2.5)
    _fill(parts, window & (np.mod(x, 1.5) > 0.15), GLASS)
    _fill(parts, (z > 2.6) & (z < 2.9) & (x > length / 2 - 0.15) & (np.abs(y) < 0.9), HEADLIGHT)
    _wheels(parts, x, y, z, (-0.28 * length, 0.33 * length), 0.5)
    _lights(parts, x, y, z, 1.2, 1.4)
    paints = ((200, 40, 36), (30, 110, 60), (230, 180, 40), (230, 230, 230))
    return Model('vehicle.bus.rigid', parts, _palette(_pick(rng, paints), _pick(rng, paints)))


def _trailer(rng) -> Model:
    length, height = rng.uniform(6.5, 10.0), rng.uniform(2.6, 3.6)
    parts, x, y, z = _space(length, 2.4, height)
    _fill(parts, (z > 0.9) & (z < 1.1), TYRE)
    _fill(parts, (z > 1.1) & (np.mod(x, 0.6) > 0.1), BODY)
    _fill(parts, (z > 1.1) & (np.mod(x, 0.6) <= 0.1), SECOND)
    _fill(parts, (z < 0.9) & (np.abs(x - 0.35 * length) < 0.1) & (np.abs(y) < 0.7), SECOND)
    _wheels(parts, x, y, z, (-0.38 * length, -0.26 * length), 0.45)
    paints = ((150, 80, 50), (60, 90, 130), (190, 190, 185), (70, 110, 80))
    body = _pick(rng, paints)
    return Model('vehicle.trailer', parts, _palette(body, [0.8 * v for v in body]))


def _excavator(rng) -> Model:
    parts, x, y, z = _space(6.4, 2.5, 3.2)
    tracks = (z < 0.8) & (np.abs(y) > 0.75) & (np.abs(x + 1.2) < 1.8)
    _fill(parts, tracks, TYRE)
    _fill(parts, (z > 0.8) & (z < 1.7) & (np.abs(x + 1.4) < 1.7), BODY)
    cabin = (z >= 1.7) & (z < 2.8) & (np.abs(x + 0.4) < 0.8) & (y > 0)
    _fill(parts, cabin, GLASS)
    _fill(parts, cabin & ((z > 2.6) | (np.abs(x + 0.4) > 0.65)), BODY)
    reach = (x - 0.2) / 2.0
    boom = (
        (np.abs(y) < 0.25)
        & (np.abs(z - (1.6 + 1.4 * np.minimum(reach, 2 - reach) * (reach > 0))) < 0.25)
        & (x > 0.0)
        & (x < 2.7)
    )
    _fill(parts, boom, BODY)
    _fill(parts, (np.abs(y) < 0.5) & (x > 2.3) & (z < 1.0), SECOND)
    return Model('vehicle.construction', parts, _palette((235, 170, 20)))


def _two_wheeler(rng, category, length, width, wheel, ridden) -> Model:
    parts, x, y, z = _space(length, width, 1.7 if ridden else 1.1)
    motor = category == 'vehicle.motorcycle'
    thin = np.abs(y) < (0.16 if motor else 0.11)
    for position in (-length / 2 + wheel, length / 2 - wheel):
        distance = np.sqrt((x - position) ** 2 + (z - wheel) ** 2)
        tyre = (distance < wheel) & (distance > (0 if motor else wheel - 0.15))
        _fill(parts, tyre & (np.abs(y) < 0.11), TYRE)
    inner = np.abs(x) < length / 2 - wheel
    low, high = (0.3, 0.8) if motor else (0.5, 0.7)
    _fill(parts, thin & inner & (z > low) & (z < high), BODY)
    bar = (np.abs(x - 0.28 * length) < 0.1) & (z > 0.9) & (z < 1.1)
    stem = (np.abs(x - 0.28 * length) < 0.1) & thin & (z > 0.5) & (z < 1.1)
    _fill(parts, bar | stem, SECOND)
    _fill(parts, thin & (np.abs(x + 0.18 * length) < 0.2) & (z > 0.75) & (z < 0.95), SECOND)
    if ridden:
        lean = x + 0.12 * length - 0.25 * (z - 0.9)
        _fill(parts, (np.abs(lean) < 0.16) & (z > 0.9) & (z < 1.45) & (np.abs(y) < 0.22), SKIN)
        _fill(
            parts,
            (np.abs(lean) < 0.13) & (z > 1.45) & (np.abs(y) < 0.13),
            TYRE if motor else SECOND,
        )
        _fill(
            parts,
            (np.abs(x) < 0.12) & (z > 0.35) & (z < 0.95) & (np.abs(y) > 0.1) & (np.abs(y) < 0.25),
            SKIN,
        )
    return Model(category, parts, _palette(_pick(rng, _CAR_PAINTS), skin=_pick(rng, _CLOTHES)))


def _pedestrian(rng, category='human.pedestrian.adult') -> Model:
    height = rng.uniform(1.1, 1.35) if category.endswith('child') else rng.uniform(1.6, 1.9)
    parts, x, y, z = _space(0.6, 0.6, height)
    hip, neck = 0.47 * height, 0.83 * height
    stride = 0.25 * (1 - z / hip) * np.sign(y)
    legs = (np.abs(x - stride) < 0.12) & (np.abs(y) > 0.02) & (np.abs(y) < 0.2) & (z < hip)
    _fill(parts, legs, SECOND)
    _fill(parts, (np.abs(x) < 0.16) & (np.abs(y) < 0.3) & (z >= hip) & (z < neck), BODY)
    _fill(parts, (np.abs(x) < 0.13) & (np.abs(y) < 0.13) & (z >= neck), SKIN)
    worker = category.endswith('construction_worker')
    body = (240, 120, 20) if worker else _pick(rng, _CLOTHES)
    return Model(category, parts, _palette(body, _pick(rng, _CLOTHES)))


def _cone(rng) -> Model:
    parts, x, y, z = _space(0.4, 0.4, 0.8)
    _fill(parts, np.maximum(np.abs(x), np.abs(y)) < 0.2 - 0.18 * (z - 0.1) / 0.7, BODY)
    _fill(parts, z < 0.1, TYRE)
    parts[(parts == BODY) & (np.abs(z - 0.45) < 0.11)] = SECOND
    return Model('movable_object.trafficcone', parts, _palette((250, 90, 20), (235, 235, 230)))


def _barrier(rng) -> Model:
    parts, x, y, z = _space(2.0, 0.5, 1.0)
    _fill(parts, (np.abs(y) < 0.25 - 0.12 * (z > 0.3)) | (z < 0.2), BODY)
    parts[(parts == BODY) & (np.mod(x + z, 0.8) < 0.4) & (z > 0.3)] = SECOND
    paints = ((220, 60, 30), (205, 200, 190))
    return Model('movable_object.barrier', parts, _palette(_pick(rng, paints), (235, 235, 230)))


def _debris(rng) -> Model:
    parts, x, y, z = _space(*rng.uniform((0.8, 0.8, 0.4), (2.0, 1.6, 0.9)))
    pile = x**2 / np.abs(x).max() ** 2 + y**2 / np.abs(y).max() ** 2 + (z / z.max()) ** 2
    ragged = pile + rng.uniform(-0.3, 0.3, parts.shape) < 1
    parts[ragged] = rng.choice([BODY, SECOND], ragged.sum())
    return Model('movable_object.debris', parts, _palette((140, 110, 80), (110, 100, 95)))


def _bin(rng) -> Model:
    parts, x, y, z = _space(0.7, 0.7, 1.2)
    _fill(parts, (z > 0.1) & (z < 1.0), BODY)
    _fill(parts, (z >= 1.0), SECOND)
    _fill(parts, (z <= 0.1) & (np.abs(y) > 0.2), TYRE)
    paints = ((40, 90, 50), (40, 60, 110), (60, 60, 64), (170, 140, 30))
    return Model('movable_object.pushable_pullable', parts, _palette(_pick(rng, paints)))


def _dog(rng) -> Model:
    parts, x, y, z = _space(1.0, 0.3, 0.8)
    _fill(parts, (z > 0.3) & (z < 0.6) & (np.abs(x + 0.1) < 0.35), BODY)
    _fill(parts, (z < 0.3) & (np.abs(np.abs(x + 0.1) - 0.28) < 0.08) & (np.abs(y) > 0.05), BODY)
    _fill(parts, (x > 0.2) & (z > 0.5), BODY)
    return Model('animal', parts, _palette((120, 90, 60)))


_BUILDERS: Dict[str, Callable] = {
    'car': _car,
    'truck': _truck,
    'bus': _bus,
    'trailer': _trailer,
    'excavator': _excavator,
    'bicycle': lambda rng: _two_wheeler(rng, 'vehicle.bicycle', 1.7, 0.6, 0.34, False),
    'cyclist': lambda rng: _two_wheeler(rng, 'vehicle.bicycle', 1.7, 0.6, 0.34, True),
    'motorcycle': lambda rng: _two_wheeler(rng, 'vehicle.motorcycle', 2.1, 0.8, 0.32, False),
    'motorcyclist': lambda rng: _two_wheeler(rng, 'vehicle.motorcycle', 2.1, 0.8, 0.32, True),
    'pedestrian': _pedestrian,
    'child': lambda rng: _pedestrian(rng, 'human.pedestrian.child'),
    'worker': lambda rng: _pedestrian(rng, 'human.pedestrian.construction_worker'),
    'cone': _cone,
    'barrier': _barrier,
    'debris': _debris,
    'bin': _bin,
    'dog': _dog,
}
KINDS: Tuple[str, ...] = tuple(_BUILDERS)


def make_model(kind: str, rng: np.random.Generator) -> Model:
    """A random model of one of ``KINDS``."""
    return _BUILDERS[kind](rng)
