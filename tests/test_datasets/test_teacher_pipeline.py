"""LiDAR sweeps in their own frame, and a teacher's inputs beside a student's."""

from collections import Counter

import numpy as np
import pytest

from radocc_plugin import fileio
from radocc_plugin.datasets import AugmentBEV, LoadLidarSweeps
from radocc_plugin.datasets.transforms.sweeps import merge_sweeps
from radocc_plugin.occ3d import CAMERAS

CAMS = (
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_FRONT_LEFT',
    'CAM_BACK',
    'CAM_BACK_LEFT',
    'CAM_BACK_RIGHT',
)
OWN = [
    dict(type='radocc_plugin.AugmentMultiViewImages', input_size=(24, 64)),
    dict(type='radocc_plugin.LoadLidarSweeps', num_sweeps=9),
    dict(type='radocc_plugin.PackOccInputs'),
]
LOAD = dict(type='radocc_plugin.LoadMultiViewImages')
TEACHER = dict(type='radocc_plugin.TeacherPipeline', pipeline=OWN, cams=CAMS)
STUDENT = [
    dict(
        type='radocc_plugin.AugmentMultiViewImages',
        input_size=(24, 64),
        resize=(-0.1, 0.2),
        flip_prob=0.5,
        rotate=(-5, 5),
    ),
    dict(type='radocc_plugin.LoadLidarPoints', num_sweeps=1),
    dict(type='radocc_plugin.LoadOcc3D'),
    dict(type='radocc_plugin.AugmentBEV', flip_x_prob=0.5, flip_y_prob=0.5),
    dict(type='radocc_plugin.PointsToDepthMaps'),
    dict(type='radocc_plugin.PackOccInputs'),
]


@pytest.fixture
def load(make_dataset, tiny_infos):
    """Loads the first keyframe through a pipeline, from a seed."""

    def load(pipeline, seed=0, **kwargs):
        dataset = make_dataset(tiny_infos, pipeline=pipeline, **kwargs)
        np.random.seed(seed)
        return dataset[0]

    return load


def test_the_student_gets_what_it_gets_without_a_teacher(load):
    kwargs = dict(key_ego='CAM_FRONT_LEFT')
    for seed in range(3):
        plain = load([LOAD, *STUDENT], seed, **kwargs)
        beside = load([LOAD, TEACHER, *STUDENT], seed, **kwargs)
        assert beside['inputs'].keys() - plain['inputs'].keys() == {'teacher'}
        for name, value in plain['inputs'].items():
            assert value.equal(beside['inputs'][name])
        sample, other = plain['data_samples'], beside['data_samples']
        assert sample.gt_depth.equal(other.gt_depth)
        assert sample.gt_occ.semantics.equal(other.gt_occ.semantics)
        for name in ('bda_mat', 'img_aug_mat', 'cam2ego', 'cam_names'):
            np.testing.assert_array_equal(sample.metainfo[name], other.metainfo[name])


@pytest.mark.parametrize('key_ego', ['lidar', 'CAM_FRONT_LEFT'])
def test_the_teacher_gets_what_its_own_dataset_gives(load, key_ego):
    own = load([LOAD, *OWN], cams=CAMS)
    beside = load([LOAD, TEACHER, *STUDENT], key_ego=key_ego, cams=CAMERAS)
    for name, value in own['inputs'].items():
        np.testing.assert_allclose(value, beside['inputs']['teacher'][name], rtol=0, atol=1e-5)
    expected = own['data_samples'].metainfo
    sample = beside['data_samples']
    for name in ('cam_names', 'img_path'):
        assert sample.teacher.metainfo[name] == expected[name]
    for name in ('cam2img', 'cam2ego', 'img_aug_mat', 'lidar2ego', 'ego2global'):
        np.testing.assert_allclose(sample.teacher.metainfo[name], expected[name], atol=1e-9)
    np.testing.assert_array_equal(sample.teacher.metainfo['bda_mat'], sample.metainfo['bda_mat'])


def test_no_file_is_read_twice(load, monkeypatch):
    reads = Counter()

    def counted(function):
        def read(path, *args, **kwargs):
            reads[str(path)] += 1
            return function(path, *args, **kwargs)

        return read

    monkeypatch.setattr(fileio, 'read_bytes', counted(fileio.read_bytes))
    load([LOAD, TEACHER, *STUDENT])
    assert len(reads) == 6 + 2 and set(reads.values()) == {1}


def test_the_teachers_bda_is_that_of_the_student(load):
    flipped = [dict(step, flip_x_prob=1.0) if 'flip_x_prob' in step else step for step in STUDENT]
    sample = load([LOAD, TEACHER, *flipped])['data_samples']
    assert sample.teacher.metainfo['bda_mat'][0, 0] == -1


def test_augmented_images_are_no_input_of_a_teacher(load):
    with pytest.raises(ValueError, match='directly behind LoadMultiView'):
        load([LOAD, STUDENT[0], TEACHER, *STUDENT[1:]])


def test_a_missing_camera_is_named(load):
    with pytest.raises(ValueError, match='TeacherPipeline.cams.*CAM_BACK_R'):
        load([LOAD, TEACHER, *STUDENT], cams=CAMERAS[:-1])


# ------------------------------------------------------------------- sweeps
def write_cloud(path, count, value):
    points = np.full((count, 5), value, np.float32)
    points[:, 0] += np.arange(count)
    points.tofile(path)
    return str(path)


@pytest.fixture
def drive(tmp_path):
    """A keyframe of 4 points at 0 and eleven sweeps of 2 points."""
    return dict(
        lidar_path=write_cloud(tmp_path / 'key.bin', 4, 0),
        lidar2ego=np.diag([1.0, 1, 1, 1]),
        lidar_sweeps=[
            dict(
                lidar_path=write_cloud(tmp_path / f'{i}.bin', 2, 10 + i),
                lidar2ego=np.eye(4),
                lag=0.05 * i,
            )
            for i in range(1, 12)
        ],
    )


def lags(points):
    return np.unique(points[4:, 4])


def test_the_newest_sweeps_follow_the_keyframe(drive):
    points = LoadLidarSweeps(9)(drive)['lidar_points']
    assert points.dtype == np.float32 and points.shape == (4 + 18, 5)
    # close returns stay in the keyframe; the ring gives way to the time
    np.testing.assert_array_equal(points[:4, 0], range(4))
    assert not points[:4, 4].any()
    np.testing.assert_allclose(lags(points), 0.05 * np.arange(1, 10))


def test_random_sweeps_are_drawn_as_published(drive):
    seen = set()
    for seed in range(4):
        np.random.seed(seed)
        drawn = lags(LoadLidarSweeps(9, draw='random')(drive)['lidar_points'])
        assert len(drawn) == 9
        seen.update(drawn.tolist())
    assert len(seen) == 11
    with pytest.raises(ValueError, match="draw takes one of .*'oldest'"):
        LoadLidarSweeps(draw='oldest')


def test_shuffled_points_are_the_same_points(drive):
    plain = LoadLidarSweeps(9)(drive)['lidar_points']
    np.random.seed(0)
    shuffled = LoadLidarSweeps(9, shuffle=True)(drive)['lidar_points']
    assert not np.array_equal(plain, shuffled)
    np.testing.assert_array_equal(*[p[np.lexsort(p.T)] for p in (plain, shuffled)])


def test_points_on_the_border_are_outside(drive):
    area = (-1.0, -1.0, -1.0, 2.0, 9.0, 9.0)
    points = LoadLidarSweeps(0, point_cloud_range=area)(dict(drive, lidar_sweeps=[]))
    np.testing.assert_array_equal(points['lidar_points'][:, 0], [0, 1])


def test_a_frame_without_past_is_its_own_past():
    key = np.zeros((3, 5), np.float32)
    key[:, 0] = 0.5, 2, 3
    points = merge_sweeps(key, [], [], [], close=1.0, copies=9)
    assert len(points) == 3 + 9 * 2 and not points[:, 4].any()


def test_sweeps_stay_in_the_sensor_frame_under_bda(drive):
    """The student's BEV augmentation leaves LiDAR-frame points alone."""
    drive['bda_mat'] = np.eye(4)
    before = LoadLidarSweeps(2)(drive)['lidar_points'].copy()
    after = AugmentBEV(flip_x_prob=1.0)(drive)['lidar_points']
    np.testing.assert_array_equal(before, after)
