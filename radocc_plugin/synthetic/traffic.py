"""The ego trajectory and the movable objects around it, over time."""

from dataclasses import dataclass
from typing import List, Tuple

import numpy as np

from radocc_plugin.synthetic.materials import LIDARSEG_INDEX
from radocc_plugin.synthetic.objects import MODEL_VOXEL, Model, make_model
from radocc_plugin.synthetic.ray_casting import ObjectArrays
from radocc_plugin.synthetic.world import BIKE_LANE, LANE, MARGIN, PARKING, VOXEL, Layout, Street

# What stands in the parking lanes, and how often.
_PARKED = dict(car=0.6, truck=0.07, bus=0.05, trailer=0.07, motorcycle=0.07, empty=0.14)
_DRIVING = dict(car=0.78, truck=0.08, bus=0.06, motorcyclist=0.08)


@dataclass(frozen=True)
class RoadUser:
    """An object and its motion along the street.

    Args:
        model: Its looks.
        x: Position along the street at time 0, metres.
        lateral: Signed distance to the centre line, metres.
        turn: Yaw relative to the street, radians.
        speed: Signed velocity along x, m/s; 0 for what stands.
        attribute: nuScenes attribute name, '' for none.
    """

    model: Model
    x: float
    lateral: float
    turn: float
    speed: float
    attribute: str

    def pose(self, layout: Layout, time: float) -> Tuple[float, float, float]:
        """World x, y and yaw at a time in seconds."""
        x, y, yaw = layout.place(self.x + self.speed * time, self.lateral)
        return x, y, yaw + self.turn


class Traffic:
    """All objects of a scene.

    Args:
        layout: Plan of the street.
        street: Its voxels, for the height of the ground.
        users: The objects.
        ego_speed: Speed of the ego vehicle along x, m/s.
        ego_lateral: Its lane, metres from the centre line.
    """

    def __init__(
        self,
        layout: Layout,
        street: Street,
        users: List[RoadUser],
        ego_speed: float,
        ego_lateral: float,
    ) -> None:
        self.layout = layout
        self.street = street
        self.users = users
        self.ego_speed = ego_speed
        self.ego_lateral = ego_lateral
        models = [user.model for user in users]
        self._parts = np.concatenate([m.parts.ravel() for m in models])
        self._shape = np.array([m.parts.shape for m in models], np.int64)
        sizes = self._shape.prod(1)
        self._offset = np.cumsum(sizes) - sizes
        self.extent = self._shape * MODEL_VOXEL
        self.palette = np.stack([m.palette for m in models])
        self.lidarseg = np.array([LIDARSEG_INDEX[m.category] for m in models], np.uint8)
        self._x, self._speed, self._lateral, self._turn = np.array(
            [(u.x, u.speed, u.lateral, u.turn) for u in users]
        ).T

    def ego_pose(self, time: float) -> Tuple[float, float, float]:
        """World x, y and yaw of the ego vehicle at a time in seconds."""
        return self.layout.place(self.ego_speed * time, self.ego_lateral)

    def objects(self, time: float) -> ObjectArrays:
        """Voxel models at their poses at a time in seconds."""
        x, y, heading = self.layout.place(self._x + self._speed * time, self._lateral)
        ground = self.street.ground
        place = np.column_stack([x, y])
        cells = ((place - self.street.grid.lower[:2]) / VOXEL).astype(np.int64)
        cells = np.clip(cells, 0, np.array(ground.shape) - 1)
        height = ground[cells[:, 0], cells[:, 1]] + self.extent[:, 2] / 2
        yaw = heading + self._turn
        return ObjectArrays(
            self._parts,
            self._offset,
            self._shape,
            MODEL_VOXEL,
            np.column_stack([place, height]),
            np.column_stack([np.cos(yaw), np.sin(yaw)]),
            np.linalg.norm(self.extent, axis=1) / 2,
        )


def make_traffic(
    layout: Layout, street: Street, rng: np.random.Generator, duration: float
) -> Traffic:
    """Populates a street.

    Args:
        layout: Plan of the street; its route is driven in ``duration``.
        street: Its voxels.
        rng: Source of all randomness.
        duration: Length of the scene in seconds.
    """
    ego_speed = layout.route / duration
    ego_lateral = -(layout.lanes - 0.5) * LANE
    users: List[RoadUser] = []
    work_side = int(rng.choice([-1, 1]))
    work_start = rng.uniform(6, max(10.0, layout.route))
    while layout.near_crossing(work_start + 12, 14):
        work_start += 5
    users += _work_zone(layout, rng, work_side, work_start)
    for side in (-1, 1):
        reserved = (work_start - 3, work_start + 27) if side == work_side else None
        users += _parked(layout, rng, side, reserved)
        users += _sidewalk(layout, rng, side)
        for lane in range(layout.lanes):
            lateral = side * (lane + 0.5) * LANE
            is_ego_lane = lateral == ego_lateral
            speed = ego_speed if is_ego_lane else -side * rng.uniform(4, 11)
            users += _lane(layout, rng, lateral, speed, duration, is_ego_lane)
        lateral = side * (layout.lanes * LANE + BIKE_LANE / 2)
        users += _cyclists(layout, rng, lateral, -side * rng.uniform(3, 6), duration)
    users = [u for u in users if u.speed or _is_free(street, layout, u)]
    return Traffic(layout, street, users, ego_speed, ego_lateral)


def _choose(rng, weights) -> str:
    return str(rng.choice(list(weights), p=list(weights.values())))


def _is_free(street: Street, layout: Layout, user: RoadUser) -> bool:
    """Whether no wall, trunk or pole stands where the object stands."""
    x, y, _ = user.pose(layout, 0)
    radius = min(user.model.extent[:2]) / 2
    low = [int(v) for v in ((np.array([x, y]) - radius - street.grid.lower[:2]) / VOXEL)]
    high = [int(v) + 1 for v in ((np.array([x, y]) + radius - street.grid.lower[:2]) / VOXEL)]
    if min(low) < 0:
        return False
    return not street.grid.voxels[low[0] : high[0], low[1] : high[1], 3:8].any()


def _standing(kind, rng, x, lateral, turn=0.0) -> RoadUser:
    model = make_model(kind, rng)
    group = model.category.split('.')[0]
    attribute = ''
    if model.category in ('vehicle.bicycle', 'vehicle.motorcycle'):
        attribute = 'cycle.without_rider'
    elif group == 'vehicle':
        attribute = 'vehicle.parked'
    elif group == 'human':
        attribute = 'pedestrian.standing'
    return RoadUser(model, x, lateral, turn, 0.0, attribute)


def _moving(kind, rng, x, lateral, speed) -> RoadUser:
    model = make_model(kind, rng)
    attribute = 'vehicle.moving'
    if model.category in ('vehicle.bicycle', 'vehicle.motorcycle'):
        attribute = 'cycle.with_rider'
    elif model.category.startswith('human'):
        attribute = 'pedestrian.moving'
    elif model.category == 'animal':
        attribute = ''
    turn = 0.0 if speed > 0 else np.pi
    return RoadUser(model, x, lateral, turn, speed, attribute)


def _work_zone(layout, rng, side, start) -> List[RoadUser]:
    """24 m of a parking lane closed by barriers and cones."""
    edge = layout.lanes * LANE + BIKE_LANE
    inside = side * (edge + PARKING / 2)
    users = [
        _standing('excavator', rng, start + rng.uniform(7, 10), inside, rng.choice([0, np.pi])),
        _standing('trailer', rng, start + 18, inside),
        _standing('debris', rng, start + 4.0, inside + rng.uniform(-0.4, 0.4)),
        _standing('debris', rng, start + 2.4, inside + rng.uniform(-0.4, 0.4)),
        _standing('worker', rng, start + 12.4, inside, rng.uniform(0, 6)),
        _standing('worker', rng, start + 5.5, inside, rng.uniform(0, 6)),
    ]
    for x in np.arange(start, start + 13, 2.2):
        users.append(_standing('barrier', rng, x, side * (edge - 0.1)))
    for x in np.arange(start + 13.5, start + 25, 1.6):
        users.append(_standing('cone', rng, x, side * (edge - 0.1)))
    for step in range(4):
        users.append(_standing('cone', rng, start - 1, side * (edge + 0.7 * step)))
    return users


def _parked(layout, rng, side, reserved) -> List[RoadUser]:
    """Vehicles along the kerb, bumper to bumper with some gaps."""
    lateral = side * (layout.half_width - PARKING / 2)
    users = []
    x = -MARGIN + 3.0
    while x < layout.route + MARGIN - 12:
        kind = _choose(rng, _PARKED)
        if kind == 'empty':
            x += rng.uniform(3, 9)
            continue
        turn = 0.0 if side < 0 else np.pi
        count, spacing = 1, 0.0
        if kind == 'motorcycle':  # a row of them, across the lane
            count, spacing, turn = int(rng.integers(2, 5)), 1.1, side * 1.4
        row = [_standing(kind, rng, 0.0, lateral, turn) for _ in range(count)]
        length = spacing * count or row[0].model.extent[0]
        end = x + length
        if reserved and x < reserved[1] and end > reserved[0]:
            x = reserved[1]
            continue
        if layout.near_crossing((x + end) / 2, 5 + length / 2):
            x += 2.0
            continue
        for index, user in enumerate(row):
            at = x + (spacing * (index + 0.5) if spacing else length / 2)
            shift = rng.uniform(-0.12, 0.12)
            users.append(
                RoadUser(
                    user.model,
                    at,
                    user.lateral + shift,
                    user.turn + rng.uniform(-0.04, 0.04),
                    0.0,
                    user.attribute,
                )
            )
        x = end + rng.uniform(0.7, 1.8)
    return users


def _lane(layout, rng, lateral, speed, duration, is_ego_lane):
    """Vehicles that follow each other at one speed."""
    users = []
    # Far enough back that the lane is still populated at the end.
    x = -MARGIN - max(0.0, speed * duration)
    end = layout.route + MARGIN + max(0.0, -speed * duration)
    while x < end:
        kind = _choose(rng, _DRIVING)
        user = _moving(kind, rng, x, lateral, speed)
        half = user.model.extent[0] / 2
        # The ego vehicle needs its place in its own lane.
        if not is_ego_lane or abs(x - 1.3) > 12 + half:
            users.append(user)
        x += 2 * half + rng.uniform(9, 45)
    return users


def _cyclists(layout, rng, lateral, speed, duration):
    users = []
    x = -MARGIN - max(0.0, speed * duration)
    end = layout.route + MARGIN + max(0.0, -speed * duration)
    while x < end:
        kind = 'cyclist' if rng.random() < 0.75 else 'motorcyclist'
        users.append(_moving(kind, rng, x, lateral, speed))
        x += rng.uniform(12, 50)
    return users


def _sidewalk(layout, rng, side) -> List[RoadUser]:
    """People and what stands around on one sidewalk."""
    kerb, users = layout.half_width, []
    for x in np.arange(-MARGIN, layout.route + MARGIN, 5.0):
        at = x + rng.uniform(0, 5)
        walk = side * (kerb + rng.uniform(1.3, layout.sidewalk - 0.4))
        chance = rng.random()
        if chance < 0.45:
            kind = 'pedestrian' if rng.random() < 0.85 else 'child'
            speed = rng.uniform(0.6, 1.7) * rng.choice([-1, 1])
            users.append(_moving(kind, rng, at, walk, speed))
            if rng.random() < 0.1:
                users.append(_moving('dog', rng, at + 0.9, walk, speed))
        elif chance < 0.55:
            users.append(_standing('pedestrian', rng, at, walk, rng.uniform(0, 6)))
        elif chance < 0.68:
            users.append(
                _standing('bin', rng, at, side * (kerb + layout.sidewalk), rng.uniform(0, 6))
            )
        elif chance < 0.8:
            for index in range(int(rng.integers(1, 5))):
                users.append(
                    _standing(
                        'bicycle',
                        rng,
                        at + 0.7 * index,
                        side * (kerb + layout.sidewalk - 0.2),
                        np.pi / 2 + rng.uniform(-0.2, 0.2),
                    )
                )
        elif chance < 0.84:
            for index in range(3):
                users.append(_standing('barrier', rng, at + 2.2 * index, side * (kerb + 0.3)))
        elif chance < 0.88:
            users.append(_standing('cone', rng, at, side * (kerb - 0.4)))
    return users
