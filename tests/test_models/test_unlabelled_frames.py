"""Frames without labels train what needs none, and disturb nothing else."""

import pytest
import torch

from radocc_plugin.label_space import UNLABELLED
from tests.support.drives import SMALL, Drive, queue_batch
from tests.support.models import build_model, make_batch

pytestmark = pytest.mark.slow
FAMILIES = {
    'BEVDetOcc': 'bevdet-occ',
    'FlashOcc': 'flashocc',
    'BEVFormerOcc': 'bevformer-occ',
    'OccTeacher': 'occ-teacher-fusion',
}


def batch_of_two(family):
    if family == 'BEVFormerOcc':
        return queue_batch((Drive(1), 1), (Drive(2), 2))
    return make_batch(batch_size=2)


def first_of(inputs, samples):
    return {name: value[:1] for name, value in inputs.items()}, samples[:1]


@pytest.mark.parametrize('family', FAMILIES)
def test_unlabelled_frames_add_depth_losses_only(family):
    changes = SMALL if family == 'BEVFormerOcc' else {}
    model = build_model(
        f'projects/{family}/configs/{FAMILIES[family]}_tiny_1xb1-3e_synthetic.py', **changes
    ).eval()
    inputs, samples = batch_of_two(family)
    alone = model(*first_of(inputs, samples), mode='loss')
    without = samples[1].gt_occ
    without.semantics[:] = UNLABELLED
    without.mask_camera[:] = False
    both = model(inputs, samples, mode='loss')
    assert both.keys() == alone.keys()
    for name, loss in both.items():
        if 'depth' not in name:
            torch.testing.assert_close(loss, alone[name])

    samples[0].gt_occ = without
    nothing = model(inputs, samples, mode='loss')
    for name, loss in nothing.items():
        assert loss.isfinite() and (loss == 0) == ('depth' not in name), name
    sum(nothing.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
