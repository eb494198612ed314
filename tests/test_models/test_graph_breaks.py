"""Where torch.compile would leave a student's training step."""

import pytest

from tests.support.models import build_model, make_batch

# What depends on values: how many points lie in the grid, how many voxels count.
KNOWN = ('assign_voxels', 'visible_voxels')


def test_a_lift_splat_student_breaks_at_the_numbers_of_points_and_voxels_alone():
    dynamo = pytest.importorskip('torch._dynamo')
    model = build_model('projects/FlashOcc/configs/flashocc_tiny_1xb1-3e_synthetic.py').train()
    inputs, samples = make_batch(1)
    dynamo.reset()
    try:
        found = dynamo.explain(lambda: model(inputs, samples, mode='loss'))()
    finally:
        dynamo.reset()
    places = {b.user_stack[-1].name for b in found.break_reasons if b.user_stack}
    assert places == set(KNOWN)
    assert found.graph_count <= 20
