"""The immovable part of a scene: its street, buildings and greenery.

World frame of a scene: the ego vehicle starts near the origin and drives along
+x on the right-hand side of the road; y points left, z up, metres.
"""

from dataclasses import dataclass
from typing import NamedTuple, Tuple

import numpy as np

from radocc_plugin.synthetic.materials import (
    CONCRETE,
    DIRT,
    FACADES,
    FOLIAGES,
    METAL,
    PLAZA,
    ROAD,
    ROOF,
    SIDEWALK,
    SIGN,
    TERRAIN,
    TRUNK,
)
from radocc_plugin.synthetic.ray_casting import BRICK, StaticGrid, brick_clearance

VOXEL = 0.2
# Margin around the route, so that the ground truth (57 m to its corners) and
# most LiDAR returns lie inside.
MARGIN = 80.0
HALF_DEPTH = 75.0
LEVELS = 96
# Ground is one voxel thick. With its top at -0.05 m, road and sidewalk
# (0.15 m) both lie well inside the Occ3D layer [-0.2, 0.2) m.
BOTTOM = -0.25

LANE, BIKE_LANE, PARKING = 3.4, 1.4, 2.6
PAINT_SIZE = 0.1
PAINT_HALF_DEPTH = 30.0
# Paint codes of the road raster.
BARE, WHITE, YELLOW, PATCH, IRON, BIKE_RED = range(6)


@dataclass(frozen=True)
class Layout:
    """Plan of the street; ``lateral`` is measured from its centre line.

    Args:
        route: Length that the ego vehicle drives along x.
        amplitude, wavelength, phase: The centre line is a gentle sine.
        lanes: Driving lanes per direction.
        sidewalk, verge: Widths of the strips beside the road.
        crossings: x of each cross street.
        crossing_half_width: Half the width of the cross streets.
    """

    route: float
    amplitude: float
    wavelength: float
    phase: float
    lanes: int
    sidewalk: float
    verge: float
    crossings: Tuple[float, ...]
    crossing_half_width: float

    @property
    def half_width(self) -> float:
        """Half the width of the road, from centre line to kerb."""
        return self.lanes * LANE + BIKE_LANE + PARKING

    def centre(self, x):
        """y of the centre line."""
        turn = 2 * np.pi * np.asarray(x) / self.wavelength + self.phase
        return self.amplitude * (np.sin(turn) - np.sin(self.phase))

    def heading(self, x):
        """Yaw of the centre line, radians."""
        scale = 2 * np.pi / self.wavelength
        return np.arctan(self.amplitude * scale * np.cos(scale * np.asarray(x) + self.phase))

    def lateral(self, x, y):
        """Signed distance to the centre line, left positive."""
        return (y - self.centre(x)) * np.cos(self.heading(x))

    def place(self, x, lateral) -> tuple:
        """World x, y and yaw of points beside the centre line at x."""
        yaw = self.heading(x)
        return (x - lateral * np.sin(yaw), self.centre(x) + lateral * np.cos(yaw), yaw)

    def kerb_distance(self, x, y):
        """Distance outwards from the nearest kerb, negative on a road."""
        distance = np.abs(self.lateral(x, y)) - self.half_width
        for crossing in self.crossings:
            distance = np.minimum(distance, np.abs(x - crossing) - self.crossing_half_width)
        return distance

    def near_crossing(self, x: float, margin: float) -> bool:
        """Whether x is within ``margin`` of a cross street."""
        return any(
            abs(x - crossing) < self.crossing_half_width + margin for crossing in self.crossings
        )


class Street(NamedTuple):
    """A finished static scene.

    grid: Voxels for ray casting.
    ground: Height of the ground at each voxel column, shape (X, Y).
    paint: Paint code of the road surface at 0.1 m, shape (U, V) uint8.
    paint_lower: World x, y of the corner of ``paint``.
    """

    grid: StaticGrid
    ground: np.ndarray
    paint: np.ndarray
    paint_lower: np.ndarray


def make_layout(rng: np.random.Generator, route: float) -> Layout:
    """A random plan for a scene in which the ego drives ``route`` metres."""
    crossings = []
    x = rng.uniform(-50, 10)
    while x < route + MARGIN:
        crossings.append(float(x))
        x += rng.uniform(75, 120)
    return Layout(
        route=route,
        amplitude=float(rng.uniform(0, 7)),
        wavelength=float(rng.uniform(160, 320)),
        phase=float(rng.uniform(0, 2 * np.pi)),
        lanes=int(rng.integers(1, 3)),
        sidewalk=float(rng.uniform(2.4, 4.0)),
        verge=float(rng.uniform(1.0, 3.0)),
        crossings=tuple(crossings),
        crossing_half_width=float(rng.uniform(3.5, 7.0)),
    )


class _Canvas:
    """Voxels under construction, addressed in world metres."""

    def __init__(self, layout: Layout) -> None:
        self.lower = np.array([-MARGIN, -HALF_DEPTH, BOTTOM])
        extent = (layout.route + 2 * MARGIN, 2 * HALF_DEPTH)
        columns = [int(np.ceil(e / VOXEL / BRICK)) * BRICK for e in extent]
        self.voxels = np.zeros((*columns, LEVELS), np.uint8)

    def window(self, lower, upper) -> Tuple[slice, ...]:
        """Slices of the voxels between two world corners, clipped."""
        slices = []
        for axis in range(3):
            low, high = (
                int(round((v - self.lower[axis]) / VOXEL)) for v in (lower[axis], upper[axis])
            )
            limit = self.voxels.shape[axis]
            slices.append(slice(min(max(low, 0), limit), min(max(high, 0), limit)))
        return tuple(slices)

    def box(self, lower, upper, material: int) -> None:
        self.voxels[self.window(lower, upper)] = material

    def ball(self, rng, centre, radii, material: int, density: float) -> None:
        """A ragged ellipsoid that leaves what is there already."""
        centre, radii = np.asarray(centre), np.asarray(radii)
        window = self.window(centre - radii - VOXEL, centre + radii + VOXEL)
        target = self.voxels[window]
        axes = [
            (np.arange(s.start, s.stop) + 0.5) * VOXEL + low for s, low in zip(window, self.lower)
        ]
        offsets = [(a - c) / r for a, c, r in zip(axes, centre, radii)]
        inside = (
            offsets[0][:, None, None] ** 2
            + offsets[1][None, :, None] ** 2
            + offsets[2][None, None, :] ** 2
        )
        ragged = inside + rng.uniform(-0.25, 0.25, inside.shape) < 1
        ragged &= rng.random(inside.shape) < density
        target[ragged & (target == 0)] = material


def build_street(layout: Layout, rng: np.random.Generator) -> Street:
    """Voxels of a street after its plan."""
    canvas = _Canvas(layout)
    nx, ny, _ = canvas.voxels.shape
    x = ((np.arange(nx) + 0.5) * VOXEL + canvas.lower[0])[:, None]
    y = ((np.arange(ny) + 0.5) * VOXEL + canvas.lower[1])[None, :]
    kerb = layout.kerb_distance(x, y)
    lots = [(side, start, end) for side in (1, -1) for start, end in _lots(layout, rng)]
    material, level = _ground(layout, rng, x, y, kerb, lots)
    for height in range(level.max() + 1):
        canvas.voxels[:, :, height] = np.where(level >= height, material, 0)
    _island(canvas, layout, rng)
    level = (canvas.voxels[:, :, :8] > 0).sum(-1) - 1
    ground = BOTTOM + VOXEL * (level + 1)
    for side, start, end in lots:
        _fill_lot(canvas, layout, rng, side, start, end)
    for side in (1, -1):
        _street_furniture(canvas, layout, rng, side)
    grid = StaticGrid(canvas.voxels, brick_clearance(canvas.voxels), canvas.lower, VOXEL)
    paint, paint_lower = _paint(layout, rng, canvas.lower[0], nx)
    return Street(grid, ground.astype(np.float32), paint, paint_lower)


def _lots(layout: Layout, rng: np.random.Generator):
    """Stretches (start, end) along x for one side, cross streets left out."""
    reserve = layout.sidewalk + layout.verge
    x = -MARGIN
    while x < layout.route + MARGIN:
        end = x + rng.uniform(10, 26)
        blocked = [
            c
            for c in layout.crossings
            if x < c + layout.crossing_half_width + reserve
            and end > c - layout.crossing_half_width - reserve
        ]
        if blocked:
            end = min(blocked) - layout.crossing_half_width - reserve
        if end - x > 5:
            yield x, end
        x = end
        if blocked:
            x = min(blocked) + layout.crossing_half_width + reserve


def _ground(layout, rng, x, y, kerb, lots):
    """Material and height level of the ground, shape (X, Y) each."""
    lateral = layout.lateral(x, y)
    material = np.full(kerb.shape, TERRAIN, np.uint8)
    for side, start, end in lots:
        kind = rng.choice([TERRAIN, PLAZA, SIDEWALK, DIRT], p=[0.45, 0.3, 0.15, 0.1])
        material[((x >= start) & (x < end)) & (lateral * side > 0)] = kind
    material[kerb < layout.sidewalk] = SIDEWALK
    material[kerb < 0] = ROAD
    level = (kerb >= 0).astype(np.int64)
    # Soft grass mounds away from the street.
    waves = sum(
        np.sin(x * fx + y * fy + phase)
        for fx, fy, phase in zip(
            rng.uniform(-0.3, 0.3, 4), rng.uniform(-0.3, 0.3, 4), rng.uniform(0, 6.3, 4)
        )
    )
    mound = (material == TERRAIN) & (kerb > layout.sidewalk + 1)
    level[mound] += np.clip(waves[mound] * 1.2, 0, 3).astype(np.int64)
    return material, level


def _island(canvas, layout, rng):
    """A raised traffic island along part of the centre line."""
    if layout.lanes < 2:
        return
    start = rng.uniform(0, layout.route + 20)
    for x in np.arange(start, start + rng.uniform(12, 30), VOXEL):
        if not layout.near_crossing(x, 5):
            y = float(layout.centre(x))
            canvas.box((x, y - 0.4, BOTTOM), (x + VOXEL, y + 0.4, 0.15), PLAZA)


def _fill_lot(canvas, layout, rng, side, start, end):
    """A building, a garden or an open place behind the sidewalk."""
    xs = np.linspace(start, end, 8)
    # Where the road bends, the outermost point of the kerb counts.
    front = (side * layout.centre(xs)).max()
    front += layout.half_width + layout.sidewalk + layout.verge

    def box(x0, x1, depth0, depth1, z0, z1, material):
        ys = sorted((side * (front + depth0), side * (front + depth1)))
        canvas.box((x0, ys[0], z0), (x1, ys[1], z1), material)

    def house(x0, x1, depth0, depth1, height):
        """Hollow, with walls and a roof of two voxels."""
        wall = 2 * VOXEL
        facade = int(rng.choice(FACADES))
        box(x0, x1, depth0, depth1, 0.15, height, facade)
        box(x0, x1, depth0, depth1, height - wall, height, ROOF)
        box(x0 + wall, x1 - wall, depth0 + wall, depth1 - wall, 0.15, height - wall, 0)

    kind = rng.random()
    gap = rng.uniform(0, 1.5)
    depth = rng.uniform(8, 14)
    if kind < 0.6:
        setback = rng.uniform(0, 4) * (rng.random() < 0.5)
        height = rng.uniform(4, 15)
        house(start + gap, end - gap, setback, setback + depth, height)
        if rng.random() < 0.4:  # awning over the ground floor
            box(start + gap + 1, end - gap - 1, setback - 1.2, setback, 2.95, 3.15, CONCRETE)
        if rng.random() < 0.3:  # front steps
            box(
                (start + end) / 2 - 1,
                (start + end) / 2 + 1,
                setback - 0.8,
                setback,
                0.15,
                0.55,
                CONCRETE,
            )
    else:
        if rng.random() < 0.4:
            box(start, end, 0.2, 0.4, 0.15, rng.uniform(0.9, 2.0), CONCRETE)
        for _ in range(rng.poisson((end - start) / 4)):
            x, inward = rng.uniform(start, end), rng.uniform(1.5, 14)
            _tree(canvas, rng, x, side * (front + inward))
        for _ in range(rng.poisson((end - start) / 3)):
            x, inward = rng.uniform(start, end), rng.uniform(0.8, 8)
            radii = rng.uniform(0.5, 1.1, 3)
            canvas.ball(
                rng, (x, side * (front + inward), 0.4), radii, int(rng.choice(FOLIAGES)), 0.9
            )
    # A taller row behind closes the view.
    if rng.random() < 0.8:
        house(start + 1, end - 1, 24, 24 + depth, rng.uniform(9, 18))


def _tree(canvas, rng, x, y):
    trunk = rng.uniform(1.8, 3.2)
    radius = 0.2 if rng.random() < 0.7 else 0.3
    canvas.box((x - radius, y - radius, 0.15), (x + radius, y + radius, trunk), TRUNK)
    crown = rng.uniform(1.3, 2.6)
    material = int(rng.choice(FOLIAGES))
    for _ in range(3):
        shift = rng.uniform(-0.5, 0.5, 3) * crown
        canvas.ball(
            rng,
            (x + shift[0], y + shift[1], trunk + 0.9 * crown + 0.6 * shift[2]),
            (crown, crown, crown * rng.uniform(0.7, 1.1)),
            material,
            0.75,
        )


def _street_furniture(canvas, layout, rng, side):
    """Trees, hedges, lamps and signs along one kerb."""
    near_kerb = layout.half_width + 0.7
    spacing = rng.uniform(7, 16)
    x = -MARGIN + rng.uniform(0, spacing)
    index = 0
    while x < layout.route + MARGIN:
        px, py, _ = layout.place(x, side * near_kerb)
        index += 1
        x += spacing * rng.uniform(0.8, 1.2)
        if layout.near_crossing(px, 3):
            continue
        if index % 3 == 0:
            _lamp(canvas, px, py, -side)
        elif rng.random() < 0.2:
            canvas.box((px, py, 0.15), (px + VOXEL, py + VOXEL, 2.95), METAL)
            canvas.box((px, py - 0.3, 2.15), (px + VOXEL, py + 0.5, 2.95), SIGN)
        elif rng.random() < 0.75:
            _tree(canvas, rng, px, py)
    for start in np.arange(-MARGIN, layout.route + MARGIN, 18.0):
        if rng.random() < 0.35 and not layout.near_crossing(start + 5, 10):
            depth = layout.half_width + layout.sidewalk + 0.3
            material = int(rng.choice(FOLIAGES))
            for hedge in np.arange(start, start + 9, 0.6):
                px, py, _ = layout.place(hedge, side * depth)
                canvas.ball(rng, (px, py, 0.5), (0.5, 0.45, 0.7), material, 0.95)
    for crossing in layout.crossings:  # traffic lights
        px, py, _ = layout.place(
            crossing - side * (layout.crossing_half_width + 1.0), -side * near_kerb
        )
        canvas.box((px, py, 0.15), (px + VOXEL, py + VOXEL, 3.55), METAL)
        canvas.box((px, py, 2.55), (px + 2 * VOXEL, py + 2 * VOXEL, 3.55), METAL)


def _lamp(canvas, x, y, towards):
    canvas.box((x, y, 0.15), (x + VOXEL, y + VOXEL, 6.55), METAL)
    arm = sorted((y, y + towards * 2.0))
    canvas.box((x, arm[0], 6.35), (x + VOXEL, arm[1] + VOXEL, 6.55), METAL)


def _paint(layout, rng, lower_x, columns):
    """Lane markings, crosswalks, patches and manhole covers."""
    shape = (round(columns * VOXEL / PAINT_SIZE), round(2 * PAINT_HALF_DEPTH / PAINT_SIZE))
    x = ((np.arange(shape[0]) + 0.5) * PAINT_SIZE + lower_x)[:, None]
    y = ((np.arange(shape[1]) + 0.5) * PAINT_SIZE - PAINT_HALF_DEPTH)[None, :]
    lateral = layout.lateral(x, y)
    side = np.abs(lateral)
    paint = np.zeros(shape, np.uint8)
    for _ in range(int(layout.route / 5) + 12):
        px = rng.uniform(lower_x, layout.route + MARGIN)
        offset = rng.uniform(-layout.half_width, layout.half_width)
        length, width = rng.uniform(2, 14), rng.uniform(0.4, 1.6)
        first = int((px - lower_x) / PAINT_SIZE)
        rows = slice(first, first + int(length / PAINT_SIZE))
        paint[rows][np.abs(lateral[rows] - offset) < width] = PATCH
        # A manhole cover at its start.
        rows = slice(first, first + 8)
        cover = (x[rows] - px - 0.4) ** 2 + (lateral[rows] - offset) ** 2 < 0.12
        paint[rows][cover] = IRON
    drive = layout.lanes * LANE
    if rng.random() < 0.35:
        paint[(side > drive) & (side < drive + BIKE_LANE)] = BIKE_RED
    dashed = np.mod(x, 9.0) < 3.0
    for lane in range(1, layout.lanes):
        paint[(np.abs(side - lane * LANE) < 0.08) & dashed] = WHITE
    paint[np.abs(side - 0.15) < 0.06] = YELLOW if rng.random() < 0.6 else WHITE
    paint[np.abs(side - drive) < 0.07] = WHITE
    bays = (np.abs(side - drive - BIKE_LANE) < 0.05) & (np.mod(x, 2) < 1)
    paint[bays] = WHITE
    for crossing in layout.crossings:
        from_edge = np.abs(x - crossing) - layout.crossing_half_width
        paint[np.broadcast_to(from_edge < 4.6, shape)] = BARE
        zebra = (from_edge > 0.8) & (from_edge < 3.6)
        paint[zebra & (np.mod(lateral, 1.0) < 0.5)] = WHITE
        stop = (from_edge > 4.1) & (from_edge < 4.5)
        towards = np.sign(x - crossing) * lateral > 0
        paint[stop & towards & (side < drive)] = WHITE
    return paint, np.array([lower_x, -PAINT_HALF_DEPTH])
