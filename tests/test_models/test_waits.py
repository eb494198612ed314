"""Where the host waits for the device in a training step of a student.

What is made of matrices alone starts on the host and is not seen here: the
plan of a lift (one wait for each new rig) and the lists of queries that a
camera sees (one a frame), which are called by themselves below.
"""

import pytest
import torch

from radocc_plugin.geometry import cameras, ray_samplers
from radocc_plugin.models.bevformer.pillars import list_seen_queries
from radocc_plugin.registry import MODELS
from tests.support.drives import Drive, queue_batch, small_model
from tests.support.models import build_model, make_batch
from tests.support.streams import make_frames
from tests.support.waits import OnDevice, noted_waits, on_device
from tests.test_distillation.toy_distillation import batch_of, distilled

TINY = 'projects/{}/configs/{}_1xb1-3e_synthetic.py'
# How many voxels a camera sees: the softmax of the others would take four
# times the memory of the loss.
VISIBLE = {'losses/occupancy.py:visible_voxels': 1}
STUDENTS = {
    'bevdet-occ_tiny': ('BEVDetOcc', VISIBLE),
    'bevdet-occ_tiny-4d-stereo': ('BEVDetOcc', VISIBLE),
    'flashocc_tiny': ('FlashOcc', VISIBLE),
}


def waits_of(model, batch):
    inputs, samples = batch
    inputs, samples = on_device(inputs), [on_device(s) for s in samples]
    with noted_waits() as noted:
        losses = model.train()(inputs, samples, mode='loss')
    assert all(isinstance(loss, OnDevice) for loss in losses.values())
    return dict(noted)


@pytest.mark.parametrize('name', STUDENTS)
def test_a_lift_splat_student_waits_for_the_number_of_visible_voxels(name):
    family, expected = STUDENTS[name]
    model = build_model(TINY.format(family, name))
    assert waits_of(model, make_batch(1, num_adjacent=2)) == expected


def test_bevformer_waits_for_the_number_of_visible_voxels():
    batch = queue_batch((Drive(0), 3), (Drive(1), 3))
    assert waits_of(small_model(), batch) == VISIBLE


def test_fbocc_waits_for_visible_voxels_and_whether_each_of_them_has_a_label():
    with_lovasz = {'occupancy_head.loss_weights.lovasz': 1.0}
    model = build_model(TINY.format('FBOcc', 'fbocc_tiny'), **with_lovasz)
    assert waits_of(model, make_frames(0)[0]) == {
        'models/fbocc/occ_head.py:loss': 1,
        # of four losses, right behind the first: next to nothing is queued
        'losses/occupancy.py:labelled_mask': 5,
    }


FINITE = {'distillation/checks.py:describe_nonfinite': 1}
# The walk itself, which is Triton's on a GPU, and its check, which is left to
# the device there: test_on_a_gpu.py.
WALK = ('rendering/', 'geometry/traversal.py')
VOXEL = dict(losses=dict(voxel=dict(type='radocc_plugin.RenderedVoxelConsistency')))
PIXELS = dict(type='radocc_plugin.RenderedSemanticConsistency', affinity='pixels', max_pairs=4)
DISTILLED = {
    'voxels that see light': (VOXEL, {'losses/voxel_consistency.py:forward': 1}),
    'segments': ({}, {'losses/segment_affinity.py:sort_by_group': 1}),
    'segments, and their pairs of pixels': (
        dict(losses=dict(pixels=PIXELS)),
        {'losses/segment_affinity.py:sort_by_group': 1, 'losses/segment_affinity.py:draw_pairs': 1},
    ),
    'maps that rays are drawn by': (
        dict(VOXEL, sampler='segments'),
        {'losses/voxel_consistency.py:forward': 1, 'geometry/ray_samplers.py:_segment_balanced': 1},
    ),
}


@pytest.mark.parametrize('what', DISTILLED)
def test_a_distillation_waits_once_for_what_is_finite_and_for_the_number_of(what, monkeypatch):
    for module in (cameras, ray_samplers):
        monkeypatch.setattr(module, 'upload', lambda values, device: on_device(values))
    changes, expected = DISTILLED[what]
    sampler = changes.get('sampler', 'random')
    config = distilled(**{name: x for name, x in changes.items() if name != 'sampler'})
    config['renderer'].update(backend='torch', ray_sampler=sampler)
    model = MODELS.build(config)
    own = {'losses/occupancy.py:labelled_mask': 1}  # of the toy student
    noted = waits_of(model, batch_of())
    noted = {place: n for place, n in noted.items() if not place.startswith(WALK)}
    assert noted == {**own, **FINITE, **expected}


def test_lists_of_queries_wait_for_the_longest_alone():
    inside = (torch.rand(2, 3, 9, 4) < 0.3).as_subclass(OnDevice)
    with noted_waits() as noted:
        list_seen_queries(torch.rand(2, 3, 9, 4, 2), inside)
    assert sum(noted.values()) == 1


def test_waits_are_found():
    x = torch.rand(3).as_subclass(OnDevice)
    with noted_waits() as noted:
        y = (x * 2)[:2]
        torch.where(y > 1, y, -y).sum()
        y[torch.tensor([0, 1])]
        assert not noted
        y[y > 0.5], y.sum().item(), bool(y.any()), y.nonzero()
    assert sum(noted.values()) == 4
