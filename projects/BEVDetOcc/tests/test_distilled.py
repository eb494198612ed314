"""The distiller takes the family's students as they are."""

import pytest
import torch

from tests.support.models import build_model, make_batch

CONFIGS = 'configs/radocc/radocc_'


@pytest.mark.parametrize(
    'name', ['bevdet-occ_tiny-4d-stereo_1xb1-3e_synthetic', 'flashocc_tiny_1xb1-3e_synthetic']
)
def test_a_student_is_tapped_and_learns_from_rendering(name):
    model = build_model(
        f'{CONFIGS}{name}.py', **{'teacher.checkpoint': None, 'renderer.max_rays': 300}
    )
    inputs, samples = make_batch(num_adjacent=2)
    samples[0].segments = torch.arange(6 * 4 * 5).view(6, 4, 5).int()
    losses = model(inputs, samples, mode='loss')
    own = model.student(inputs, samples, mode='loss')
    assert own.keys() < losses.keys()
    assert all(loss.isfinite() for loss in losses.values())
    rendered = [losses[name] for name in losses.keys() - own.keys()]
    sum(loss for loss in rendered if loss.requires_grad).backward()
    assert model.student.occ_head.predicter[2].weight.grad.any()
