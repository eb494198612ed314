"""One scene of the synthetic data set: from a seed to files and table rows."""

from pathlib import Path
from typing import List, NamedTuple, Tuple

import numpy as np
from PIL import Image

from radocc_plugin.synthetic.materials import make_surfaces
from radocc_plugin.synthetic.nuscenes_tables import (
    SCENE_TABLES,
    VERSION,
    Rows,
    attribute_token,
    category_token,
    link,
    make_token,
    pose_row,
    sensor_token,
    visibility_token,
)
from radocc_plugin.synthetic.ground_truth import beam_mask, camera_mask, occupancy_labels
from radocc_plugin.synthetic.sensors import (
    CAMERA_DELAYS,
    Camera,
    Scan,
    View,
    make_rig,
    pose_matrix,
    scan,
    take_picture,
)
from radocc_plugin.synthetic.shading import make_lighting
from radocc_plugin.synthetic.traffic import make_traffic
from radocc_plugin.synthetic.world import build_street, make_layout

KEYFRAME_INTERVAL = 0.5
SPLITS = ('train', 'val', 'test')
_LIDAR = 'LIDAR_TOP'
_ANNOTATED_RANGE = 70.0
_JPEG_QUALITY = 90
# 2020-01-01 in microseconds; scenes are an hour apart.
_EPOCH, _HOUR = 1_577_836_800_000_000, 3_600_000_000


class SceneSettings(NamedTuple):
    """What makes a scene.

    name: Scene name, see :func:`scene_name`.
    seed: Entropy of all its random numbers.
    number: Sets the clock of the scene.
    frames: Keyframes, at 2 Hz.
    sweeps: LiDAR sweeps between two keyframes.
    image_sweeps: How many of them come with images.
    image_size: Width and height in pixels.
    """

    name: str
    seed: Tuple[int, ...]
    number: int
    frames: int
    sweeps: int
    image_sweeps: int
    image_size: Tuple[int, int]


def scene_name(split: str, index: int) -> str:
    """``synthetic-train-0001`` for the first scene of the train split."""
    return f'synthetic-{split}-{index + 1:04d}'


def scene_settings(name: str, world: dict) -> SceneSettings:
    """Settings of a scene from its name and those of the whole data set.

    A scene is the same however many others are drawn.

    Args:
        name: As :func:`scene_name` makes it.
        world: ``seed``, ``frames``, ``sweeps``, ``image_sweeps``,
            ``image_size``.
    """
    _, split, number = name.split('-')
    split, index = SPLITS.index(split), int(number) - 1
    return SceneSettings(
        name,
        (world['seed'], split, index),
        split * 10_000 + index,
        world['frames'],
        world['sweeps'],
        world['image_sweeps'],
        tuple(world['image_size']),
    )


def transform(a2b: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (P, 3) of frame a in frame b."""
    return points @ a2b[:3, :3].T + a2b[:3, 3]


class SceneWriter:
    """Builds the world of a scene and records a drive through it.

    Args:
        root: Folder of the data set.
        settings: What makes the scene.
    """

    def __init__(self, root: Path, settings: SceneSettings) -> None:
        self.root = Path(root)
        self.settings = settings
        rng = self._rng('world')
        duration = KEYFRAME_INTERVAL * settings.frames
        self.layout = make_layout(rng, rng.uniform(3, 10) * duration)
        self.street = build_street(self.layout, rng)
        self.traffic = make_traffic(self.layout, self.street, rng, duration)
        self.surfaces = make_surfaces(rng)
        self.lighting = make_lighting(rng)
        self.rig = make_rig(rng, settings.image_size)
        self.world2global = pose_matrix(*rng.uniform(300, 1800, 2), 0.0, rng.uniform(-np.pi, np.pi))
        self.rows: Rows = {table: [] for table in SCENE_TABLES}

    def _rng(self, *purpose) -> np.random.Generator:
        """Random numbers for one purpose, independent of all others."""
        key = int(make_token(*purpose)[:16], 16)
        return np.random.default_rng([*self.settings.seed, key])

    def _token(self, *parts) -> str:
        return make_token(*self.settings.seed, self.settings.name, *parts)

    def _timestamp(self, time: float) -> int:
        clock = _EPOCH + self.settings.number * _HOUR
        return clock + int(round(time * 1e6))

    def ego2world(self, time: float) -> np.ndarray:
        x, y, yaw = self.traffic.ego_pose(time)
        return pose_matrix(x, y, 0.0, yaw)

    def picture(self, channel: str, time: float) -> View:
        """What a camera sees at a time in seconds; always the same."""
        camera = self.rig.cameras[channel]
        return take_picture(
            self.street,
            self.traffic,
            self.surfaces,
            self.lighting,
            camera,
            self.ego2world(time) @ camera.cam2ego,
            self.rig.image_size,
            time,
            self._rng('picture', channel, self._timestamp(time)),
        )

    def time(self, timestamp: int) -> float:
        """Seconds since the start of the scene of a file's timestamp."""
        return (timestamp - self._timestamp(0.0)) * 1e-6

    def write(self) -> Rows:
        """Writes all sensor files and returns the rows of all tables."""
        self._write_calibration()
        for frame in range(self.settings.frames):
            self._write_keyframe(frame)
        for channel in (_LIDAR, *self.rig.cameras):
            calibration = self._token('calibration', channel)
            link(
                [
                    row
                    for row in self.rows['sample_data']
                    if row['calibrated_sensor_token'] == calibration
                ]
            )
        link(self.rows['sample'])
        self._write_instances()
        samples = self.rows['sample']
        self.rows['scene'].append(
            dict(
                token=self._token('scene'),
                log_token=self._token('log'),
                nbr_samples=len(samples),
                first_sample_token=samples[0]['token'],
                last_sample_token=samples[-1]['token'],
                name=self.settings.name,
                description='Synthetic street',
            )
        )
        return self.rows

    def _write_calibration(self) -> None:
        self.rows['log'].append(
            dict(
                token=self._token('log'),
                logfile=self.settings.name,
                vehicle=self.settings.name,
                date_captured='2020-01-01',
                location='synthetic-town',
            )
        )
        sensors = [(_LIDAR, self.rig.lidar2ego, [])]
        sensors += [
            (name, camera.cam2ego, camera.cam2img.tolist())
            for name, camera in self.rig.cameras.items()
        ]
        for channel, sensor2ego, intrinsic in sensors:
            self.rows['calibrated_sensor'].append(
                pose_row(
                    self._token('calibration', channel),
                    sensor2ego,
                    sensor_token=sensor_token(channel),
                    camera_intrinsic=intrinsic,
                )
            )

    def _new_file(self, channel, sample_token, time, is_key_frame) -> Path:
        """Rows and path of one recording of a sensor."""
        timestamp = self._timestamp(time)
        token = self._token('sample_data', channel, timestamp)
        is_camera = channel != _LIDAR
        folder = 'samples' if is_key_frame else 'sweeps'
        suffix = 'jpg' if is_camera else 'pcd.bin'
        filename = f'{folder}/{channel}/{self.settings.name}__{channel}__{timestamp}.{suffix}'
        width, height = self.rig.image_size if is_camera else (0, 0)
        self.rows['ego_pose'].append(
            pose_row(token, self.world2global @ self.ego2world(time), timestamp=timestamp)
        )
        self.rows['sample_data'].append(
            dict(
                token=token,
                sample_token=sample_token,
                ego_pose_token=token,
                calibrated_sensor_token=self._token('calibration', channel),
                timestamp=timestamp,
                fileformat='jpg' if is_camera else 'pcd',
                is_key_frame=is_key_frame,
                height=height,
                width=width,
                filename=filename,
            )
        )
        return self._path(filename)

    def _path(self, filename: str) -> Path:
        path = self.root / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _scan(self, time: float, sample_token: str, is_key_frame: bool) -> Scan:
        path = self._new_file(_LIDAR, sample_token, time, is_key_frame)
        lidar2world = self.ego2world(time) @ self.rig.lidar2ego
        sweep = scan(
            self.street,
            self.traffic,
            self.surfaces,
            lidar2world,
            time,
            self._rng('scan', self._timestamp(time)),
        )
        sweep.points.tofile(path)
        return sweep

    def _write_keyframe(self, frame: int) -> None:
        time = KEYFRAME_INTERVAL * frame
        token = self._token('sample', frame)
        self.rows['sample'].append(
            dict(token=token, timestamp=self._timestamp(time), scene_token=self._token('scene'))
        )
        sweeps, images = self.settings.sweeps, self.settings.image_sweeps
        with_images = {(n + 1) * (sweeps + 1) // (images + 1) - 1 for n in range(images)}
        for n in range(sweeps if frame else 0):
            gap = 1 - (n + 1) / (sweeps + 1)
            at = time - KEYFRAME_INTERVAL * gap
            self._scan(at, token, False)
            if n in with_images:
                self._write_images(at, token, False)
        key = self._scan(time, token, True)
        lidar_token = self.rows['sample_data'][-1]['token']
        filename = f'lidarseg/{VERSION}/{lidar_token}_lidarseg.bin'
        key.lidarseg.tofile(self._path(filename))
        self.rows['lidarseg'].append(
            dict(token=lidar_token, sample_data_token=lidar_token, filename=filename)
        )
        cameras, visible = self._write_images(time, token, True)
        self._write_labels(time, token, key, cameras)
        self._annotate(time, token, key, visible)

    def _write_images(self, time, token, is_key_frame):
        """Six pictures; cameras in the ego frame of ``time``, objects seen.

        Visibility is the share of an object's pixels that nothing hides,
        shape (O, 2): pixels that see it, pixels that would if it were alone.
        """
        world2ego = np.linalg.inv(self.ego2world(time))
        cameras: List[Camera] = []
        visible = np.zeros((len(self.traffic.users), 2), np.int64)
        for name, camera in self.rig.cameras.items():
            at = time + CAMERA_DELAYS[name] * 1e-6
            path = self._new_file(name, token, at, is_key_frame)
            cam2world = self.ego2world(at) @ camera.cam2ego
            view = self.picture(name, at)
            Image.fromarray(view.image).save(path, quality=_JPEG_QUALITY)
            seen = view.hits.instance[view.hits.instance >= 0]
            visible[:, 0] += np.bincount(seen, minlength=len(visible))
            visible[:, 1] += view.hits.touched
            cameras.append(Camera(camera.cam2img, world2ego @ cam2world))
        return cameras, visible

    def _write_labels(self, time, token, key, cameras) -> None:
        ego2world = self.ego2world(time)
        labels = occupancy_labels(self.street, self.traffic, self.surfaces, ego2world, time)
        lidar2ego = self.rig.lidar2ego
        points = transform(lidar2ego, key.points[:, :3].astype(np.float64))
        beams = beam_mask(lidar2ego[:3, 3], points)
        seen = camera_mask(
            labels,
            beams,
            cameras,
            self.rig.image_size,
            self.street.grid,
            self.traffic.objects(time),
            ego2world,
        )
        # As in Occ3D, the camera mask lies inside the LiDAR mask: there
        # occupied voxels hold a LiDAR point of some sweep of the drive.
        np.savez_compressed(
            self._path(f'gts/{self.settings.name}/{token}/labels.npz'),
            semantics=labels,
            mask_lidar=beams | seen,
            mask_camera=seen,
        )

    def _annotate(self, time, token, key, visible) -> None:
        """Boxes of the objects that a sensor of the keyframe saw."""
        objects = self.traffic.objects(time)
        returns = np.bincount(key.instance[key.instance >= 0], minlength=len(visible))
        ego = self.ego2world(time)[:3, 3]
        near = np.linalg.norm(objects.centre - ego, axis=1) < _ANNOTATED_RANGE
        seen = near & ((returns > 0) | (visible[:, 0] > 0))
        for index in np.flatnonzero(seen):
            user = self.traffic.users[index]
            cos, sin = objects.heading[index]
            box2world = pose_matrix(*objects.centre[index], np.arctan2(sin, cos))
            length, width, height = self.traffic.extent[index]
            share = visible[index, 0] / max(visible[index, 1], 1)
            self.rows['sample_annotation'].append(
                pose_row(
                    self._token('annotation', token, index),
                    self.world2global @ box2world,
                    sample_token=token,
                    instance_token=self._token('instance', index),
                    visibility_token=visibility_token(share),
                    attribute_tokens=[attribute_token(user.attribute)] if user.attribute else [],
                    size=[width, length, height],
                    num_lidar_pts=int(returns[index]),
                    num_radar_pts=0,
                )
            )

    def _write_instances(self) -> None:
        """Instances from their annotations, which are linked in passing."""
        tracks = {}
        for row in self.rows['sample_annotation']:
            tracks.setdefault(row['instance_token'], []).append(row)
        for index, user in enumerate(self.traffic.users):
            token = self._token('instance', index)
            if token not in tracks:
                continue
            track = tracks[token]
            link(track)
            self.rows['instance'].append(
                dict(
                    token=token,
                    category_token=category_token(user.model.category),
                    nbr_annotations=len(track),
                    first_annotation_token=track[0]['token'],
                    last_annotation_token=track[-1]['token'],
                )
            )
