import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from tests.support.label_spaces import small_space

from radocc_plugin.evaluation import OccMetric, confusion_matrix, ring_mask, scores
from radocc_plugin.occ3d import CLASSES, OCC3D_NUSCENES, POINT_CLOUD_RANGE
from radocc_plugin.registry import METRICS
from radocc_plugin.structures import OccData, OccDataSample


def random_sample(seed, shape=(6, 5, 4), classes=18):
    rng = torch.Generator().manual_seed(seed)

    def draw(high):
        return torch.randint(high, shape, generator=rng, dtype=torch.uint8)

    return OccDataSample(
        gt_occ=OccData(
            semantics=draw(classes), mask_camera=draw(2).bool(), mask_lidar=draw(2).bool()
        ),
        pred_occ=OccData(semantics=draw(classes)),
    )


def count(*volumes):
    return confusion_matrix(*volumes, num_classes=18)


def evaluate(samples, metric, size=None, space=OCC3D_NUSCENES):
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = space.metainfo()
    for sample in samples:
        evaluator.process([sample])
    return evaluator.evaluate(size or len(samples))


def reference(samples, mask):
    """The definition, voxel set by voxel set."""
    gt = np.stack([s.gt_occ.semantics.numpy() for s in samples])
    pred = np.stack([s.pred_occ.semantics.numpy() for s in samples])
    keep = np.ones(gt.shape, bool)
    if mask != 'none':
        keep = np.stack([s.gt_occ.get(f'mask_{mask}').numpy() for s in samples])
    gt, pred = gt[keep], pred[keep]
    ious = []
    for c in range(17):
        union = ((gt == c) | (pred == c)).sum()
        hits = ((gt == c) & (pred == c)).sum()
        ious.append(100 * hits / union if union else np.nan)
    return np.nanmean(ious), ious


@pytest.mark.parametrize('mask', ['camera', 'lidar', 'none'])
def test_metric_equals_the_definition_on_the_masked_voxels(mask):
    samples = [random_sample(s) for s in range(3)]
    got = evaluate(samples, METRICS.build(dict(type='radocc_plugin.OccMetric', mask=mask)))
    miou, ious = reference(samples, mask)
    assert got['occ/mIoU'] == pytest.approx(miou)
    for name, iou in zip(CLASSES, ious):
        assert got[f'occ/IoU_{name}'] == pytest.approx(iou)


def test_iou_is_occupied_against_free():
    target = torch.tensor([17, 17, 0, 4, 4])
    prediction = torch.tensor([17, 3, 17, 4, 5])
    # occupied in both: 2 voxels, in either: 4
    assert scores(count(target, prediction), CLASSES)['IoU'] == 50


def test_absent_class_is_nan_and_left_out_of_the_mean():
    target = torch.tensor([4, 4, 16, 17])
    result = scores(count(target, target.clone()), CLASSES)
    assert result['mIoU'] == 100
    assert math.isnan(result['IoU_bus'])


def test_groups_are_means_of_their_classes_that_occur():
    confusion = torch.zeros(4, 4)
    confusion[0, 0], confusion[0, 3] = 3, 1  # a: 3 / 4
    confusion[1, 1] = 2  # b: 1
    result = scores(confusion, 'abc' + 'f', groups=dict(ab='ab', bc='bc', c='c'))
    assert result['mIoU_ab'] == pytest.approx(87.5)
    assert result['mIoU_bc'] == pytest.approx(100)
    assert math.isnan(result['mIoU_c'])


def test_repeated_evaluation_starts_anew():
    metric = OccMetric()
    evaluate([random_sample(0)], metric)
    again = evaluate([random_sample(1)], metric)
    fresh = evaluate([random_sample(1)], OccMetric())
    assert again == pytest.approx(fresh, nan_ok=True)


def test_results_do_not_hold_volumes():
    metric = OccMetric()
    metric.dataset_meta = OCC3D_NUSCENES.metainfo()
    metric.process(None, [random_sample(0).to_dict()])
    assert [r.shape for r in metric.results] == [(18, 18)]


def test_results_of_samples_share_an_allocation_and_travel_alone():
    """Between freed volumes, an allocation for each would let memory grow."""
    metric = OccMetric()
    metric.dataset_meta = OCC3D_NUSCENES.metainfo()
    samples = [random_sample(seed).to_dict() for seed in range(3)]
    metric.process(None, samples)
    first, *others = metric.results
    assert all(row.base is first.base is not None for row in others)
    for sample, row in zip(samples, metric.results):
        truth, prediction = (sample[k]['semantics'] for k in ('gt_occ', 'pred_occ'))
        mask = sample['gt_occ']['mask_camera']
        counts = confusion_matrix(truth, prediction, mask, num_classes=18)
        assert np.array_equal(row, counts)
    assert len(pickle.dumps(first)) < 2 * first.nbytes


def test_log_shows_every_class_and_the_mask(monkeypatch):
    lines = []
    monkeypatch.setattr(
        'radocc_plugin.evaluation.occ_metric.print_log',
        lambda message, logger: lines.append(message),
    )
    evaluate([random_sample(0)], OccMetric(mask='lidar'))
    (text,) = lines
    assert 'mask: lidar' in text
    assert all(name in text for name in CLASSES[:17])


RANK = """
import importlib.util, sys
import torch
import torch.distributed as dist

source, folder, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
spec = importlib.util.spec_from_file_location('cases', source)
cases = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cases)
dist.init_process_group(
    'gloo', init_method=f'file://{folder}/init', rank=rank, world_size=2)
metric = cases.OccMetric(collect_dir=f'{folder}/parts')
metric.dataset_meta = cases.OCC3D_NUSCENES.metainfo()
# three samples on two ranks: the sampler repeats sample 0 as padding
for seed in ([0, 2], [1, 0])[rank]:
    metric.process(None, [cases.random_sample(seed).to_dict()])
torch.save(metric.evaluate(3), f'{folder}/result.{rank}')
"""


def test_two_ranks_with_padding_equal_one_rank(tmp_path):
    ranks = [
        subprocess.Popen([sys.executable, '-c', RANK, __file__, str(tmp_path), str(rank)])
        for rank in range(2)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    want = evaluate([random_sample(s) for s in range(3)], OccMetric())
    for rank in range(2):
        got = torch.load(tmp_path / f'result.{rank}')
        assert got == pytest.approx(want, nan_ok=True)


def test_unknown_mask_is_an_error():
    with pytest.raises(ValueError, match="mask takes one of .* got 'radar'"):
        OccMetric(mask='radar')


def test_missing_field_names_it_and_the_sample():
    sample = random_sample(0)
    sample.set_metainfo(dict(token='t0'))
    del sample.gt_occ.mask_lidar
    with pytest.raises(ValueError, match='gt_occ.mask_lidar of sample t0'):
        evaluate([sample], OccMetric(mask='lidar'))


@pytest.mark.parametrize(
    'prediction,message',
    [
        (torch.zeros(3), 'prediction has shape'),
        (torch.full((2,), 18), 'prediction takes labels 0..17, got 18'),
        (torch.zeros(2), 'prediction takes integer labels, got torch.float32'),
    ],
)
def test_wrong_prediction_is_an_error(prediction, message):
    with pytest.raises(ValueError, match=message):
        count(torch.zeros(2, dtype=torch.uint8), prediction)


def test_unlabelled_voxels_are_not_counted():
    target = torch.tensor([255, 4], dtype=torch.uint8)
    assert count(target, torch.tensor([0, 4])).sum() == 1


@pytest.fixture
def golden_miou(golden):
    """The case with its structured ground truth and prediction."""
    case = golden.case('metric_miou')
    truth = case.input('gt')
    prediction = torch.where(
        case.input('noise') < 0.2, case.input('noise_label'), truth.roll(1, dims=1)
    )
    return golden, case, truth, prediction


@pytest.mark.parametrize('mask', ['camera', 'lidar', 'none'])
@pytest.mark.parametrize('variant', ['structured', 'random', 'missing'])
def test_golden_metric_miou(golden_miou, variant, mask):
    golden, case, truth, prediction = golden_miou
    if variant == 'random':
        truth, prediction = case.input('random_gt'), case.input('random_pred')
    if variant == 'structured':
        truth = truth.masked_fill(case.input('ignore'), 255)
    if variant == 'missing':
        for volume in (truth, prediction):
            volume[(volume == 5) | (volume == 9)] = 17

    counted = None if mask == 'none' else case.input(f'mask_{mask}')
    confusion = count(truth, prediction, counted)
    golden.compare(case, f'{variant}/{mask}/hist', confusion.int())
    result = scores(confusion, CLASSES)
    want = case.expected(f'{variant}/{mask}/iou')[:17] * 100
    got = np.array([result[f'IoU_{c}'] for c in CLASSES[:17]])
    # the fixture stores NaN as -1
    np.testing.assert_allclose(np.where(np.isnan(got), -100, got), want)
    assert result['mIoU'] == pytest.approx(case.expected(f'{variant}/{mask}/miou')[0])


@pytest.mark.parametrize('name', ['ring', 'ring_default'])
def test_golden_ring(golden_miou, name):
    golden, case, truth, prediction = golden_miou
    truth = truth.masked_fill(case.input('ignore'), 255)
    # all of FB-OCC's default, which changes nothing
    ring = case.config.get(name, (-1.0, 100.0))
    kept = ring_mask(truth.shape[1:], POINT_CLOUD_RANGE, ring, 'corner')
    confusion = count(truth, prediction, case.input('mask_camera') & kept)
    golden.compare(case, f'{name}/hist', confusion.int())
    assert scores(confusion, CLASSES)['mIoU'] == pytest.approx(case.expected(f'{name}/miou')[0])


def test_ring_measures_centres_or_as_published_corners():
    # cells of 1 m; the ring keeps distances up to 1 m
    extent, ring = (-2, -2, 0, 2, 2, 1), (0.0, 1.0)
    centres = ring_mask((4, 4, 1), extent, ring)[..., 0]
    corners = ring_mask((4, 4, 1), extent, ring, 'corner')[..., 0]
    assert centres.nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert corners.nonzero().tolist() == [[1, 2], [2, 1], [2, 2], [2, 3], [3, 2]]


def test_ring_and_mask_both_select():
    sample = random_sample(0, shape=(4, 4, 2))
    extent = (-2, -2, 0, 2, 2, 1)
    got = evaluate([sample], OccMetric(ring=(0.0, 1.0)), space=small_space(extent, 1.0))
    sample.gt_occ.mask_camera &= ring_mask((4, 4, 2), extent, (0.0, 1.0))
    assert got == pytest.approx(evaluate([sample], OccMetric()), nan_ok=True)


@pytest.mark.parametrize('arguments', [dict(ring=(5, 2)), dict(ring=[1]), dict(ring_at='edge')])
def test_wrong_ring_is_an_error(arguments):
    field = next(iter(arguments))
    with pytest.raises(ValueError, match=f'{field} takes'):
        OccMetric(**arguments)
