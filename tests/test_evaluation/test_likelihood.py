"""Likelihood and rendered depth error against plain re-counts."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from radocc_plugin.evaluation import OccLikelihood, negative_log_likelihood
from radocc_plugin.evaluation.table import build_tables
from radocc_plugin.label_space import UNLABELLED, LabelSpace

SHAPE, WEIGHT = (20, 16, 8), [2.0, 1.0, 0.25]
SPACE = LabelSpace(
    label_space='toy',
    classes=('thing', 'wall', 'free'),
    palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)),
    point_cloud_range=(0.0, -8.0, -4.0, 20.0, 8.0, 4.0),
    voxel_size=1.0,
    masks=('camera',),
)


def wall_at(x):
    labels = torch.full(SHAPE, 2)
    labels[x] = 1
    return labels


def sample_of(labels, mask=None):
    return dict(
        token='a',
        cam2img=np.array([[[40.0, 0, 32], [0, 40, 18], [0, 0, 1]]]),
        cam2ego=np.array([[[0.0, 0, 1, 0.1], [-1, 0, 0, 0.1], [0, -1, 0, 0.1], [0, 0, 0, 1]]]),
        ori_shape=(36, 64),
        gt_occ=dict(
            semantics=labels, mask_camera=torch.ones(SHAPE).bool() if mask is None else mask
        ),
    )


def measured(volumes, samples, **kwargs):
    metric = OccLikelihood(**kwargs)
    metric.dataset_meta = SPACE.metainfo()
    for logits, sample in zip(volumes, samples):
        metric.take_logits = lambda logits=logits: logits[None]
        metric.process(None, [sample])
    return metric.evaluate(len(samples))


def sure_of(labels):
    return 40.0 * F.one_hot(labels, 3).float()


def test_likelihood_is_the_mean_over_all_counted_voxels():
    generator = torch.Generator().manual_seed(0)
    volumes = [torch.randn(*SHAPE, 3, generator=generator) for _ in range(2)]
    labels = torch.randint(0, 3, (2, *SHAPE), generator=generator)
    labels[0, 3] = UNLABELLED
    masks = torch.rand(2, *SHAPE, generator=generator) < torch.tensor([0.2, 0.7]).view(2, 1, 1, 1)
    found = measured(volumes, list(map(sample_of, labels, masks)))['soft/NLL']
    values = []
    for volume, label, mask in zip(volumes, labels.numpy(), masks.numpy()):
        p = np.exp(volume.double().numpy())
        p /= p.sum(-1, keepdims=True)
        for index in zip(*np.nonzero(mask & (label != UNLABELLED))):
            values.append(-np.log(p[index][label[index]]))
    assert found == pytest.approx(np.mean(values))
    every, count = negative_log_likelihood(volumes[1], labels[1])
    assert count == labels[1].numel() and every > 0


@pytest.mark.parametrize('x, error', [(10, 0.0), (9, 1.0), (7, 3.0)])
def test_depth_error_is_how_far_a_wall_stands_off(x, error):
    scores = measured([sure_of(wall_at(x))], [sample_of(wall_at(10))])
    assert scores['soft/depth_error'] == pytest.approx(error, abs=0.02)


def test_light_that_hits_nothing_ends_where_the_ray_leaves():
    scores = measured([sure_of(torch.full(SHAPE, 2))], [sample_of(wall_at(10))])
    # through the far face, 19.9 m ahead of the camera, or nearer through a side
    assert 4 < scores['soft/depth_error'] < 9.5
    nothing = measured([sure_of(wall_at(3))], [sample_of(torch.full(SHAPE, 2))])
    assert np.isnan(nothing['soft/depth_error'])


def test_without_the_hook_it_says_what_is_missing():
    metric = OccLikelihood()
    metric.dataset_meta = SPACE.metainfo()
    with pytest.raises(ValueError, match='LogitsForMetrics'):
        metric.process(None, [sample_of(wall_at(1))])


def test_tables_tell_the_gain(new_record):
    records = [new_record(), new_record(name='ours', role='radocc')]
    for record, nll, error in zip(records, (0.9, 0.6), (4.0, None)):
        record['metrics'].update(NLL=nll, depth_error=error)
    (table,) = build_tables(records)
    caption = '\n'.join(table.caption)
    assert 'Further gains of ours: ' in caption and 'NLL -0.30' in caption
    assert 'depth_error' not in caption
    assert len(table.rows[0].classes) == 17
