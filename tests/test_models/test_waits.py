"""Where the host waits for the device in a training step of a student.

What is made of matrices alone starts on the host and is not seen here: the
plan of a lift (one wait for each new rig) and the lists of queries that a
camera sees (one a frame), which are called by themselves below.
"""

import pytest
import torch

from radocc_plugin.models.bevformer.pillars import list_seen_queries
from tests.support.drives import Drive, queue_batch, small_model
from tests.support.models import build_model, make_batch
from tests.support.streams import make_frames
from tests.support.waits import OnDevice, noted_waits, on_device

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


def test_fbocc_waits_in_its_losses_only():
    waits = waits_of(build_model(TINY.format('FBOcc', 'fbocc_tiny')), make_frames(0)[0])
    assert all(place.startswith(('losses/', 'models/fbocc/occ_head.py')) for place in waits), waits
    # Its semantic affinity asks for every class; the tiny model leaves the
    # Lovasz loss out.
    assert sum(waits.values()) <= 27


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
