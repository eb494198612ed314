import math

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from tests.support.label_spaces import small_space

from radocc_plugin.evaluation import (
    RayIoU,
    cast_rays,
    count_rays,
    lidar_directions,
    ray_scores,
    scene_lidar_origins,
)
from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.occ3d import CLASSES, FREE, POINT_CLOUD_RANGE
from radocc_plugin.structures import OccData, OccDataSample

SPACE = small_space((-4.0, -4.0, -1.0, 4.0, 4.0, 1.4))
SMALL = SPACE.grid


def scene(seed, density=0.05, grid=SMALL):
    rng = torch.Generator().manual_seed(seed)
    occupied = torch.rand(grid.shape, generator=rng) < density
    labels = torch.randint(0, FREE, grid.shape, generator=rng)
    return torch.where(occupied, labels, torch.tensor(FREE)).to(torch.uint8)


def published_walk(labels, origin, direction, size):
    """One ray of ``dvr.render_forward``, written from its formulas."""
    shape = labels.shape
    voxel = [int(o) for o in origin]  # towards zero
    step = [1 if d >= 0 else -1 for d in direction]
    t_max, t_delta = [], []
    for axis in range(3):
        if direction[axis] == 0:
            t_max.append(math.inf)
            t_delta.append(math.inf)
            continue
        boundary = voxel[axis] + (step[axis] > 0)
        t_max.append((boundary - origin[axis]) / direction[axis])
        t_delta.append(step[axis] / direction[axis])
    last = None
    for _ in range(1000):
        inside = all(0 <= v < n for v, n in zip(voxel, shape))
        if not inside and last is not None:
            break
        x, y, z = t_max
        axis = 0 if x < y and x < z else 1 if y < z else 2
        if inside:
            last = (labels[tuple(voxel)].item(), t_max[axis] * size)
            if last[0] < FREE:
                return last
        voxel[axis] += step[axis]
        t_max[axis] += t_delta[axis]
    return last or (labels[0, 0, 0].item(), -size)


@pytest.mark.parametrize(
    'origin',
    [(0.11, 0.23, 0.31), (3.9, -3.9, 1.3), (5.1, 0.17, 0.3), (-7.3, 9.1, 0.7), (0.1, 0.2, 3.1)],
)
def test_rays_end_where_the_published_walk_ends(origin):
    """From inside the grid, from its corner, and from outside of it."""
    labels, origin = scene(0), torch.tensor(origin)
    directions = lidar_directions()[::31]
    if origin[2] > 3:
        directions = -directions.abs()
    hits = cast_rays(labels[None], origin, directions, SMALL, free=FREE)
    start = (origin - torch.tensor(SMALL.minimum)) / 0.4
    ends = (origin + directions - torch.tensor(SMALL.minimum)) / 0.4
    ways = (ends - start).double()
    ways = ways / ways.norm(dim=1, keepdim=True)
    want = [published_walk(labels, start.tolist(), way.tolist(), 0.4) for way in ways]
    assert hits.labels[0].tolist() == [label for label, _ in want]
    np.testing.assert_allclose(hits.distances[0], [d for _, d in want], atol=1e-4)


def wall(distance, thickness=1):
    """A wall of class 4 that starts ``distance`` cells from x = 0."""
    labels = torch.full(SMALL.shape, FREE, dtype=torch.uint8)
    labels[10 + distance : 10 + distance + thickness] = 4
    return labels


def test_published_distance_is_the_exit_and_ours_the_entry():
    volume, origin = wall(5)[None], torch.zeros(3)
    ahead = torch.tensor([[1.0, 0.0, 0.0]])
    leaves = cast_rays(volume, origin, ahead, SMALL, free=FREE)
    enters = cast_rays(volume, origin, ahead, SMALL, published_quirks=False, free=FREE)
    assert leaves.distances.item() == pytest.approx(2.4, abs=1e-5)
    assert enters.distances.item() == pytest.approx(2.0, abs=1e-5)
    assert leaves.labels.item() == enters.labels.item() == 4


def test_rays_that_miss_the_grid_count_only_as_published():
    volume = torch.full(SMALL.shape, 3, dtype=torch.uint8)
    outside = torch.tensor([0.0, 0.0, 3.0])
    published = count_rays(volume, volume, outside[None], SMALL, free=FREE)
    exact = count_rays(volume, volume, outside[None], SMALL, False, free=FREE)
    assert published[0, 3] == len(lidar_directions())
    # the grid is 4 m wide and ends 1.6 m below: gentler rays pass over it
    meets = lidar_directions()[:, 2] < -0.2
    assert 0 < exact[0, 3] < meets.sum()


def test_counts_need_class_and_depth():
    origin = torch.zeros(1, 3)
    truth = wall(2)
    same = count_rays(truth, truth, origin, SMALL, free=FREE)
    assert same[0, 4] > 0 and (same == same[0]).all()
    # 4 cells further: 1.6 m and more, depending on the angle
    farther = count_rays(wall(6), truth, origin, SMALL, free=FREE)
    assert farther[2, 4] == 0 and farther[3, 4] > 0
    other = truth.clone()
    other[truth == 4] = 5
    wrong_class = count_rays(other, truth, origin, SMALL, free=FREE)
    assert wrong_class[2:].sum() == 0
    assert wrong_class[1, 5] == same[0, 4]


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_counts_on_a_gpu_are_those_on_the_cpu():
    origins = torch.tensor([[0.1, 0.2, 0.3], [9.0, 1.0, 0.5]])
    want = count_rays(scene(1), scene(0), origins, SMALL, free=FREE)
    got = count_rays(scene(1).cuda(), scene(0).cuda(), origins, SMALL, free=FREE)
    assert torch.equal(got.cpu(), want)


def test_scores_are_means_over_classes_that_occur():
    counts = torch.zeros(5, FREE, dtype=torch.long)
    counts[:, 4] = torch.tensor([10, 10, 0, 5, 10])
    result = ray_scores(counts, CLASSES)
    assert result['RayIoU@1'] == 0
    assert result['RayIoU@2'] == pytest.approx(100 / 3)
    assert result['RayIoU@4'] == 100
    assert result['RayIoU'] == pytest.approx((0 + 100 / 3 + 100) / 3)
    assert math.isnan(result['RayIoU_bus'])


def sample(seed, **meta):
    meta.setdefault('lidar_origins', torch.tensor([[0.1, 0.2, 0.3]]))
    return OccDataSample(
        gt_occ=OccData(semantics=scene(seed)),
        pred_occ=OccData(semantics=scene(seed + 1)),
        metainfo=dict(token=f't{seed}', **meta),
    )


def evaluate(samples):
    evaluator = Evaluator(RayIoU())
    evaluator.dataset_meta = SPACE.metainfo()
    for one in samples:
        evaluator.process([one])
    return evaluator.evaluate(len(samples))


def test_metric_streams_one_small_array_a_sample():
    metric = RayIoU()
    metric.dataset_meta = SPACE.metainfo()
    metric.process(None, [sample(0).to_dict(), sample(1).to_dict()])
    assert [r.shape for r in metric.results] == [(5, FREE)] * 2
    result = evaluate([sample(0), sample(1)])
    want = ray_scores(torch.from_numpy(sum(metric.results)), CLASSES)
    assert {k[4:]: v for k, v in result.items()} == pytest.approx(want, nan_ok=True)


def test_rays_are_counted_by_the_distance_of_their_ground_truth():
    """Each ray by itself, from what it hits; and all bins are the whole."""
    target, prediction = scene(0), scene(1)
    origins = torch.tensor([[0.1, 0.2, 0.3]])
    bins = [(0.0, 1.5), (1.5, 3.0), (3.0, 20.0)]
    counts = count_rays(prediction, target, origins, SMALL, free=FREE, distances=bins)
    whole, *parts = counts.view(4, 5, FREE)
    assert torch.equal(whole, count_rays(prediction, target, origins, SMALL, free=FREE))
    assert torch.equal(sum(parts), whole) and all(part[0].sum() > 50 for part in parts)
    hits = cast_rays(
        torch.stack((target, prediction)), origins[0], lidar_directions(), SMALL, free=FREE
    )
    want = torch.zeros(3, 5, FREE, dtype=torch.long)
    for ray in hits.counted.nonzero().ravel().tolist():
        truth, guess = hits.labels[:, ray].tolist()
        near, far = hits.distances[:, ray].tolist()
        if truth >= FREE:
            continue
        part = want[next(n for n, (low, high) in enumerate(bins) if low <= near < high)]
        part[0, truth] += 1
        if guess < FREE:
            part[1, guess] += 1
        for row, threshold in enumerate((1, 2, 4)):
            part[2 + row, truth] += truth == guess and abs(near - far) < threshold
    assert torch.equal(torch.stack(parts), want)


def test_the_metric_scores_distances_beside_the_whole():
    evaluator = Evaluator(RayIoU(distances=[(0, 2), (2, 20)]))
    evaluator.dataset_meta = SPACE.metainfo()
    samples = [sample(0), sample(1)]
    for one in samples:
        evaluator.process([one])
    result = evaluator.evaluate(2)
    assert {k: v for k, v in result.items() if 'm' != k[-1]} == pytest.approx(
        evaluate(samples), nan_ok=True
    )
    counts = sum(
        count_rays(
            one.pred_occ.semantics,
            one.gt_occ.semantics,
            one.lidar_origins,
            SMALL,
            free=FREE,
            distances=[(2, 20)],
        )
        for one in samples
    )
    assert result['ray/RayIoU_2-20m'] == pytest.approx(ray_scores(counts[5:], CLASSES)['RayIoU'])


@pytest.mark.parametrize('pair', [(2, 1), (-1, 3), (1,)])
def test_distances_that_are_none_are_named(pair):
    with pytest.raises(ValueError, match='distances takes pairs'):
        RayIoU(distances=[pair])


def test_samples_without_origins_are_an_error():
    with pytest.raises(ValueError, match='lidar_origins of sample t0'):
        evaluate([sample(0, lidar_origins=None)])


def infos(xs):
    """Frames of a scene that drives along x with the LiDAR 1 m ahead."""
    out = []
    for x in xs:
        ego2global, lidar2ego = np.eye(4), np.eye(4)
        ego2global[0, 3], lidar2ego[0, 3], lidar2ego[2, 3] = x, 1, 1.8
        out.append(
            dict(scene_name='s', volume2global=ego2global, lidar2global=ego2global @ lidar2ego)
        )
    return out


def test_origins_are_those_of_the_scene_in_the_frame_s_ego():
    first, last = scene_lidar_origins(infos([0, 5]), POINT_CLOUD_RANGE)
    np.testing.assert_allclose(first, [[1, 0, 1.8], [6, 0, 1.8]], rtol=1e-6)
    np.testing.assert_allclose(last, [[-4, 0, 1.8], [1, 0, 1.8]], rtol=1e-6)


def test_origins_are_at_most_eight_and_near():
    frames = infos(range(0, 100, 2))
    for index, origins in enumerate(scene_lidar_origins(frames, POINT_CLOUD_RANGE)):
        assert len(origins) == 8 and np.abs(origins[:, 0]).max() < 39
    near = scene_lidar_origins(frames, (-20, -20, -1, 20, 20, 5.4))
    assert np.abs(np.concatenate(near)[:, 0]).max() < 19
    # the middle frame sees 39 frames on; eight at even steps, ends included
    middle = scene_lidar_origins(frames, POINT_CLOUD_RANGE)[25]
    np.testing.assert_allclose(middle[[0, -1], 0], [-37, 37])


def test_scenes_do_not_mix():
    other = [dict(i, scene_name='t') for i in infos([3])]
    first, *_ = scene_lidar_origins(infos([0]) + other, POINT_CLOUD_RANGE)
    assert len(first) == 1


@pytest.fixture(scope='module')
def golden_rayiou(golden):
    case = golden.case('metric_rayiou')
    config = case.config
    grid = VoxelGrid.from_voxel_size(config['point_cloud_range'], config['voxel_size'])
    truth = case.input('gt')
    noise, label = case.input('noise'), case.input('noise_label')
    # the case's prediction: a tenth of the occupied voxels and a hundredth
    # of the free ones get a random label
    wrong = (noise < 0.01) | ((noise < 0.1) & (truth != config['free']))
    return golden, case, grid, truth, torch.where(wrong, label, truth)


def test_golden_rays(golden_rayiou):
    golden, case, *_ = golden_rayiou
    golden.compare(case, 'rays', lidar_directions())


def test_golden_hits(golden_rayiou):
    golden, case, grid, truth, prediction = golden_rayiou
    volumes = torch.stack((truth[0], prediction[0]))
    hits = [
        cast_rays(volumes, origin, lidar_directions(), grid, free=FREE)
        for origin in case.input('origins')[0]
    ]
    labels = torch.cat([h.labels for h in hits], 1)
    distances = torch.cat([h.distances for h in hits], 1)
    # the rays of all origins of the first frame, in parts of equal size
    size = case.meta['outputs']['gt/label']['shape'][0]
    for name, volume, part in (('gt', 0, 0), ('gt2', 0, 1), ('pred', 1, 0)):
        of_part = slice(part * size, (part + 1) * size)
        golden.compare(case, f'{name}/label', labels[volume, of_part])
        golden.compare(case, f'{name}/distance', distances[volume, of_part])


def golden_scores(golden_rayiou, predict):
    golden, case, grid, truth, prediction = golden_rayiou
    return (
        case,
        golden,
        [
            count_rays(predict(t, p), t, origins, grid, free=FREE)
            for t, p, origins in zip(truth, prediction, case.input('origins'))
        ],
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    'name,predict',
    [
        ('noisy', lambda truth, prediction: prediction),
        ('identity', lambda truth, prediction: truth),
        ('shift_x', lambda truth, prediction: truth.roll(1, 0)),
        ('shift_xy', lambda truth, prediction: truth.roll((4, 2), (0, 1))),
    ],
)
def test_golden_rayiou(golden_rayiou, name, predict):
    case, golden, counts = golden_scores(golden_rayiou, predict)
    golden.compare(case, f'{name}/valid_rays', np.array([c[0].sum() for c in counts], float))
    truth, predicted, *hits = sum(counts).double()
    iou = torch.stack(hits) / (truth + predicted - torch.stack(hits))
    golden.compare(case, f'{name}/iou', iou.nan_to_num(nan=-1))
    result = ray_scores(sum(counts), CLASSES)
    golden.compare(
        case,
        f'{name}/rayiou',
        np.array([result[k] for k in ('RayIoU', 'RayIoU@1', 'RayIoU@2', 'RayIoU@4')]) / 100,
    )
