"""The synthetic world keeps the formats, and its sensors agree."""

import json
from pathlib import Path

import numpy as np
import pytest
from nuscenes import NuScenes
from nuscenes.utils.geometry_utils import points_in_box
from PIL import Image
from pyquaternion import Quaternion

from radocc_plugin.occ3d import (
    CAMERAS,
    FREE,
    GRID_SHAPE,
    LIDARSEG_TO_OCC3D,
    NUM_CLASSES,
    POINT_CLOUD_RANGE,
    VOXEL_SIZE,
)
from radocc_plugin.synthetic import generate
from radocc_plugin.synthetic.generate import SETTINGS_FILE
from radocc_plugin.synthetic.nuscenes_tables import VERSION, quaternion
from radocc_plugin.synthetic.ground_truth import camera_mask
from radocc_plugin.synthetic.ray_casting import (
    BRICK,
    ObjectArrays,
    StaticGrid,
    brick_clearance,
    cast_rays,
)
from radocc_plugin.synthetic.scene import SceneWriter, scene_settings
from radocc_plugin.synthetic.sensors import Camera, pose_matrix, take_picture

SETTINGS = dict(
    scenes_train=1, scenes_val=1, frames=2, image_size=(160, 90), seed=3, sweeps=1, progress=False
)
# nuScenes-lidarseg: flat surfaces and static things from here on.
FIRST_FLAT_INDEX = 24
TO_OCC3D = np.array(LIDARSEG_TO_OCC3D)


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('synthetic')
    generate(folder, workers=1, **SETTINGS)
    return folder


@pytest.fixture(scope='module')
def nusc(root) -> NuScenes:
    return NuScenes(VERSION, str(root), verbose=False)


def pose(row) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Quaternion(row['rotation']).rotation_matrix
    matrix[:3, 3] = row['translation']
    return matrix


def sensor2ego(nusc, data) -> np.ndarray:
    return pose(nusc.get('calibrated_sensor', data['calibrated_sensor_token']))


def ego2global(nusc, data) -> np.ndarray:
    return pose(nusc.get('ego_pose', data['ego_pose_token']))


def load_scan(nusc, data):
    """Points in the LiDAR frame and their nuScenes-lidarseg indices."""
    points = np.fromfile(nusc.get_sample_data_path(data['token']), np.float32)
    record = nusc.get('lidarseg', data['token'])
    labels = np.fromfile(Path(nusc.dataroot) / record['filename'], np.uint8)
    return points.reshape(-1, 5), labels


def load_labels(nusc, sample):
    scene = nusc.get('scene', sample['scene_token'])['name']
    path = Path(nusc.dataroot) / 'gts' / scene / sample['token']
    return dict(np.load(path / 'labels.npz'))


def samples_with_lidar(nusc):
    for sample in nusc.sample:
        yield sample, nusc.get('sample_data', sample['data']['LIDAR_TOP'])


def files_of(folder: Path) -> dict:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def test_devkit_opens_every_file(nusc):
    assert len(nusc.scene) == 2 and len(nusc.sample) == 4
    for sample in nusc.sample:
        assert set(sample['data']) == {*CAMERAS, 'LIDAR_TOP'}
        for token in sample['data'].values():
            assert Path(nusc.get_sample_data(token)[0]).is_file()
        for camera in CAMERAS:
            data = nusc.get('sample_data', sample['data'][camera])
            with Image.open(nusc.get_sample_data_path(data['token'])) as image:
                assert image.size == (160, 90)
                assert image.size == (data['width'], data['height'])
    sweeps = [d for d in nusc.sample_data if not d['is_key_frame']]
    assert len(sweeps) == 2  # one between the two keyframes of each scene
    for sweep in sweeps:
        assert Path(nusc.get_sample_data_path(sweep['token'])).is_file()
        assert nusc.get_boxes(sweep['token'])
    mask = nusc.map[0]['mask'].mask()
    assert mask.dtype == np.uint8 and mask.size


def test_recordings_and_tracks_are_linked(nusc):
    for scene in nusc.scene:
        first = nusc.get('sample', scene['first_sample_token'])
        assert first['prev'] == '' and first['next'] == scene['last_sample_token']
        data = nusc.get('sample_data', first['data']['LIDAR_TOP'])
        times = [data['timestamp']]
        while data['next']:
            data = nusc.get('sample_data', data['next'])
            times.append(data['timestamp'])
        np.testing.assert_allclose(np.diff(times), 250_000)
    tracked = 0
    for instance in nusc.instance:
        row = nusc.get('sample_annotation', instance['first_annotation_token'])
        length = 1
        while row['next']:
            row = nusc.get('sample_annotation', row['next'])
            length += 1
        assert row['token'] == instance['last_annotation_token']
        assert length == instance['nbr_annotations']
        tracked += length > 1
    assert tracked > 10


def test_same_settings_same_bytes_whatever_the_workers(root, tmp_path):
    generate(tmp_path, workers=2, **SETTINGS)
    expected, got = files_of(root), files_of(tmp_path)
    assert list(got) == list(expected)
    assert all(got[name] == expected[name] for name in expected)


def test_scenes_depend_on_their_place_and_not_on_the_others(root, tmp_path):
    others = dict(SETTINGS, scenes_val=0, scenes_test=1, workers=1)
    generate(tmp_path, **{**others, 'scenes_train': 0})
    alone = files_of(tmp_path)
    generate(tmp_path, **others)
    splits = json.loads((tmp_path / VERSION / 'splits.json').read_text())
    assert splits == dict(train=['synthetic-train-0001'], val=[], test=['synthetic-test-0001'])
    first, both = files_of(root), files_of(tmp_path)
    tables = {name for name in both if name.startswith(VERSION)}
    kept = {name for name in alone if name not in tables}
    added = set(both) - kept - tables
    assert added and all(both[name] == alone[name] for name in kept)
    assert all(both[name] == first[name] for name in added)
    # Nothing that was drawn for the test split is in another one.
    drawn = {content for name, content in first.items() if name[0] in 'sg'}
    kept -= {SETTINGS_FILE}
    assert not drawn & {both[name] for name in kept if name[0] in 'sg'}


def test_train_and_val_scenes_differ(root, nusc):
    splits = json.loads((root / VERSION / 'splits.json').read_text())
    assert splits == dict(train=['synthetic-train-0001'], val=['synthetic-val-0001'], test=[])
    firsts = [load_labels(nusc, nusc.get('sample', s['first_sample_token'])) for s in nusc.scene]
    same = firsts[0]['semantics'] == firsts[1]['semantics']
    occupied = (firsts[0]['semantics'] != FREE) | (firsts[1]['semantics'] != FREE)
    assert same[occupied].mean() < 0.7


def test_labels_hold_all_classes_and_masks_see_them(nusc):
    seen = np.zeros(NUM_CLASSES, np.int64)
    for sample in nusc.sample:
        labels = load_labels(nusc, sample)
        assert set(labels) == {'semantics', 'mask_lidar', 'mask_camera'}
        for volume in labels.values():
            assert volume.shape == GRID_SHAPE and volume.dtype == np.uint8
        seen += np.bincount(labels['semantics'].ravel(), minlength=NUM_CLASSES)
        for name in ('mask_lidar', 'mask_camera'):
            mask = labels[name]
            assert mask.max() == 1
            # No sensor looks below the ground.
            assert not mask[:, :, 0].any()
            occupied = (labels['semantics'] != FREE) & (mask == 1)
            assert occupied.sum() > 500
            assert 0.02 < mask.mean() < 0.7
        assert (labels['mask_camera'] <= labels['mask_lidar']).all()
    assert (seen > 0).all()


def test_lidar_returns_lie_in_observed_cells_of_their_class(nusc):
    for sample, data in samples_with_lidar(nusc):
        points, lidarseg = load_scan(nusc, data)
        assert len(points) == len(lidarseg) and len(points) > 15_000
        assert set(np.unique(points[:, 4])) <= set(range(32))
        labels = load_labels(nusc, sample)
        lidar2ego = sensor2ego(nusc, data)
        ego = points[:, :3] @ lidar2ego[:3, :3].T + lidar2ego[:3, 3]
        cells = np.floor((ego - POINT_CLOUD_RANGE[:3]) / VOXEL_SIZE)
        cells = cells.astype(int)
        inside = ((cells >= 0) & (cells < GRID_SHAPE)).all(1)
        at = tuple(cells[inside].T)
        classes = TO_OCC3D[lidarseg[inside]]
        assert (labels['semantics'][at] != FREE).mean() > 0.95
        assert (labels['semantics'][at] == classes).mean() > 0.9
        assert labels['mask_lidar'][at].all()


def test_boxes_count_their_lidar_returns(nusc):
    for _, data in samples_with_lidar(nusc):
        points, lidarseg = load_scan(nusc, data)
        # Boxes stand on the ground and count none of it.
        points = points[lidarseg < FIRST_FLAT_INDEX]
        _, boxes, _ = nusc.get_sample_data(data['token'])
        counted = [points_in_box(box, points[:, :3].T, wlh_factor=1.1).sum() for box in boxes]
        stated = [nusc.get('sample_annotation', box.token)['num_lidar_pts'] for box in boxes]
        assert sum(stated) > 100
        assert abs(sum(counted) - sum(stated)) < 0.1 * sum(stated)


def test_pictures_show_what_the_calibration_says(root, nusc):
    """Projected returns fall on rays of their depth and class, and the stored
    picture is the one that those rays draw."""
    name = 'synthetic-train-0001'
    settings = json.loads((root / SETTINGS_FILE).read_text())
    world = SceneWriter(root, scene_settings(name, settings))
    global2world = np.linalg.inv(world.world2global)
    scene = nusc.scene[0]
    assert scene['name'] == name
    sample = nusc.get('sample', scene['last_sample_token'])
    lidar = nusc.get('sample_data', sample['data']['LIDAR_TOP'])
    points, lidarseg = load_scan(nusc, lidar)
    lidar2global = ego2global(nusc, lidar) @ sensor2ego(nusc, lidar)
    points = points[:, :3] @ lidar2global[:3, :3].T + lidar2global[:3, 3]
    for name in CAMERAS:
        data = nusc.get('sample_data', sample['data'][name])
        cam2ego = sensor2ego(nusc, data)
        cam2global = ego2global(nusc, data) @ cam2ego
        cam2img = np.array(
            nusc.get('calibrated_sensor', data['calibrated_sensor_token'])['camera_intrinsic']
        )
        time = 0.5 + (data['timestamp'] - lidar['timestamp']) * 1e-6
        view = take_picture(
            world.street,
            world.traffic,
            world.surfaces,
            world.lighting,
            Camera(cam2img, cam2ego),
            global2world @ cam2global,
            (160, 90),
            time,
            np.random.default_rng(0),
        )
        with Image.open(nusc.get_sample_data_path(data['token'])) as image:
            stored = np.asarray(image, np.float64)
        # They differ by noise, exposure and JPEG, so compare structure.
        both = [v.mean(-1).ravel() for v in (stored, view.image)]
        assert np.corrcoef(both)[0, 1] > 0.97

        local = (points - cam2global[:3, 3]) @ cam2global[:3, :3]
        local_u, local_v, depth = (local @ cam2img.T).T
        front = depth > 1
        u, v = (np.floor(w[front] / depth[front]).astype(int) for w in (local_u, local_v))
        inside = (u >= 0) & (u < 160) & (v >= 0) & (v < 90)
        ray = v[inside] * 160 + u[inside]
        distance = np.linalg.norm(local[front][inside], axis=1)
        error = np.abs(view.hits.distance[ray] - distance)
        assert np.median(error) < 0.2, name
        material, owner = view.hits.material[ray], view.hits.instance[ray]
        classes = np.where(
            owner >= 0, world.traffic.lidarseg[owner], world.surfaces.lidarseg[material]
        )
        assert (classes == lidarseg[front][inside]).mean() > 0.8, name


def test_finished_scenes_are_kept_and_missing_ones_made(root):
    scenes = sorted((root / '.finished_scenes').iterdir())
    before = files_of(root)
    images = sorted(root.glob('samples/CAM_FRONT/*.jpg'))
    scenes[1].unlink()
    images[0].touch()
    times = [image.stat().st_mtime_ns for image in images]
    generate(root, workers=1, **SETTINGS)
    now = [image.stat().st_mtime_ns for image in images]
    assert [a == b for a, b in zip(now, times)] == [True, True, False, False]
    assert files_of(root) == before


def test_other_settings_in_the_same_folder_name_the_file(root):
    with pytest.raises(ValueError, match=f'{SETTINGS_FILE}.*seed.*3, 4'):
        generate(root, **{**SETTINGS, 'seed': 4})


@pytest.mark.parametrize(
    'name, value',
    [
        ('scenes_train', -1),
        ('frames', 0),
        ('sweeps', 10),
        ('seed', -1),
        ('workers', 0),
        ('image_size', (160,)),
        ('image_size', (160, 0)),
        ('frames', 1.5),
    ],
)
def test_bad_arguments_are_named(tmp_path, name, value):
    with pytest.raises(ValueError, match=name):
        generate(tmp_path / 'new', **{name: value})
    assert not (tmp_path / 'new').exists()


def test_no_scene_at_all_is_refused(tmp_path):
    with pytest.raises(ValueError, match='scenes_train'):
        generate(tmp_path, scenes_train=0, scenes_val=0)


def test_quaternions_are_those_of_pyquaternion():
    rng = np.random.default_rng(0)
    for q in [*rng.normal(size=(20, 4)), (0, 0, 0, 1), (0, 1, 0, 0)]:
        rotation = Quaternion(q).unit.rotation_matrix
        got = Quaternion(quaternion(rotation)).rotation_matrix
        np.testing.assert_allclose(got, rotation, atol=1e-9)


def test_clearance_is_the_chebyshev_distance_in_bricks():
    rng = np.random.default_rng(0)
    voxels = (rng.random((24, 32, 9)) < 0.002).astype(np.uint8)
    full = voxels.reshape(6, BRICK, 8, BRICK, 9).any((1, 3))
    cells = np.argwhere(np.ones_like(full))
    distance = np.abs(cells[:, None] - np.argwhere(full)).max(-1).min(1)
    np.testing.assert_array_equal(brick_clearance(voxels), distance.reshape(full.shape))


def test_rays_hit_what_small_steps_find():
    rng = np.random.default_rng(1)
    voxels = rng.integers(1, 5, (24, 24, 12)).astype(np.uint8)
    voxels[rng.random(voxels.shape) < 0.95] = 0
    lower, size = np.array([-2.0, -3.0, -1.0]), 0.2
    grid = StaticGrid(voxels, brick_clearance(voxels), lower, size)
    # One object of 4 x 6 x 8 voxels, turned by 30 degrees.
    model = rng.integers(1, 8, (4, 6, 8)).astype(np.uint8)
    angle = np.radians(30)
    heading = np.array([[np.cos(angle), np.sin(angle)]])
    objects = ObjectArrays(
        model.ravel(),
        np.array([0]),
        np.array([[4, 6, 8]]),
        0.1,
        np.array([[1.0, 0.0, 0.5]]),
        heading,
        np.array([0.6]),
    )
    directions = rng.normal(size=(300, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    origin = np.array([0.11, -0.52, 0.33])
    hits = cast_rays(grid, objects, np.array([0]), origin, directions, 4.0)

    def solid(points):
        cells = np.floor((points - lower) / size).astype(int)
        inside = ((cells >= 0) & (cells < voxels.shape)).all(-1)
        found = np.zeros(points.shape[:-1], bool)
        found[inside] = voxels[tuple(cells[inside].T)] > 0
        offset = points - objects.centre[0]
        along = offset[..., :2] @ heading[0]
        across = offset[..., 1] * heading[0, 0] - offset[..., 0] * heading[0, 1]
        box = (np.abs(along) < 0.2) & (np.abs(across) < 0.3) & (np.abs(offset[..., 2]) < 0.4)
        return found | box

    steps = np.arange(0, 4, 0.002)
    marks = solid(origin + steps[None, :, None] * directions[:, None])
    first = np.where(marks.any(1), steps[marks.argmax(1)], np.inf)
    agree = np.isclose(first, hits.distance, atol=0.003) | (
        np.isinf(first) & np.isinf(hits.distance)
    )
    assert np.isfinite(first).sum() > 100 and (hits.instance == 0).any()
    assert agree.mean() > 0.98  # steps may jump over a corner
    facing = (hits.normal * directions).sum(1)
    assert (facing[np.isfinite(hits.distance)] < 0).all()


def small_scene(rng):
    """Voxels of 0.2 m and one object, with the labels of the Occ3D grid."""
    voxels = np.zeros((60, 60, 16), np.uint8)
    voxels[..., 1] = 1  # ground, its top at -0.6 m
    voxels[rng.random(voxels.shape) < 0.01] = 2
    lower, size = np.array([-6.0, -6.0, -1.0]), 0.2
    grid = StaticGrid(voxels, brick_clearance(voxels), lower, size)
    objects = ObjectArrays(
        np.ones(4 * 6 * 8, np.uint8),
        np.array([0]),
        np.array([[4, 6, 8]]),
        0.1,
        np.array([[3.0, 0.5, 0.2]]),
        np.array([[0.8, 0.6]]),
        np.array([0.6]),
    )

    def solid(points):
        cells = np.floor((points - lower) / size).astype(int)
        inside = ((cells >= 0) & (cells < voxels.shape)).all(-1)
        found = np.zeros(points.shape[:-1], bool)
        found[inside] = voxels[tuple(cells[inside].T)] > 0
        x, y, z = np.moveaxis(points - objects.centre[0], -1, 0)
        return found | (
            (np.abs(0.8 * x + 0.6 * y) < 0.2)
            & (np.abs(0.8 * y - 0.6 * x) < 0.3)
            & (np.abs(z) < 0.4)
        )

    # A cell is occupied where one of 4 x 4 x 4 points in it is.
    steps = (np.arange(4) + 0.5) * VOXEL_SIZE / 4
    offsets = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    labels = np.full(GRID_SHAPE, FREE, np.uint8)
    window = np.argwhere(np.ones((36, 36, 10), bool)) + [82, 82, 0]
    corners = window * VOXEL_SIZE + POINT_CLOUD_RANGE[:3]
    filled = solid(corners[:, None] + offsets).any(1)
    labels[tuple(window[filled].T)] = 15
    return grid, objects, solid, labels


def test_camera_mask_is_what_rays_to_occupied_cells_pass():
    """The mask by small steps along every ray, as its docstring says."""
    rng = np.random.default_rng(2)
    grid, objects, solid, labels = small_scene(rng)
    beams = (rng.random(GRID_SHAPE) < 0.5).astype(np.uint8)
    lower = np.array(POINT_CLOUD_RANGE[:3])
    # One camera looks along x, the other along y; z of the image is forward.
    cam2img = np.array([[80.0, 0, 80], [0, 80.0, 45], [0, 0, 1]])
    cameras = []
    for forward, position in [
        ((1, 0, 0), (0.313, 0.127, 0.553)),
        ((0, 1, 0), (0.121, 0.417, 0.342)),
    ]:
        cam2ego = np.eye(4)
        down = np.array([0, 0, -1])
        cam2ego[:3, :3] = np.stack([np.cross(down, forward), down, forward], axis=1)
        cam2ego[:3, 3] = position
        cameras.append(Camera(cam2img, cam2ego))
    ego2world = np.eye(4)
    got = camera_mask(labels, beams, cameras, (160, 90), grid, objects, ego2world)

    expected = np.zeros(GRID_SHAPE, bool)
    steps = np.arange(0, 12, 0.004)
    for camera in cameras:
        for cell in np.argwhere(labels != FREE):
            offset = (cell + 0.5) * VOXEL_SIZE + lower - camera.cam2ego[:3, 3]
            u, v, depth = cam2img @ (camera.cam2ego[:3, :3].T @ offset)
            if depth <= 0 or not (0 <= u / depth < 160 and 0 <= v / depth < 90):
                continue
            length = np.linalg.norm(offset)
            along = np.append(steps[steps < length], length)
            points = camera.cam2ego[:3, 3] + np.outer(along / length, offset)
            blocked = solid(points)
            if blocked.any():  # and the first step in the surface itself
                points = points[: blocked.argmax() + 1]
            passed = np.floor((points - lower) / VOXEL_SIZE).astype(int)
            expected[tuple(passed.T)] = True
    expected &= (labels != FREE) | (beams == 1)
    assert ((expected == 1) & (labels == FREE)).sum() > 500
    assert ((expected == 1) & (labels != FREE)).sum() > 100
    hidden = (labels != FREE) & ~expected
    assert hidden.sum() > 100
    # Steps of 4 mm miss the corners that a ray only just cuts.
    assert not (expected & (got == 0)).any()
    assert expected[got == 1].mean() > 0.99

    # A turned ego frame in a turned world is the same scene.
    turned = pose_matrix(0, 0, 0, np.pi / 2)
    world2ego = np.linalg.inv(turned)
    moved = [Camera(c.cam2img, world2ego @ c.cam2ego) for c in cameras]

    def quarter(volume):
        return np.rot90(volume, -1, axes=(0, 1))

    again = camera_mask(quarter(labels), quarter(beams), moved, (160, 90), grid, objects, turned)
    np.testing.assert_array_equal(again, quarter(got))
