"""The distiller takes BEVFormer-Occ as it is."""

import pytest
import torch

from tests.support.drives import RADOCC, SMALL, Drive, build_model, queue_batch, small_model
from tests.support.models import make_sample

DRAWS = {'pts_bbox_head.transformer.encoder.dropout': 0.1, 'use_grid_mask': True}


def train(model, steps=3):
    """Parameters and buffers after a few steps."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    model.train()
    for step in range(steps):
        losses = model(*queue_batch((Drive(step), 2)), mode='loss')
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    return model.state_dict()


def test_zero_weights_train_like_the_plain_student():
    plain = small_model(**DRAWS)
    distilled = build_model(
        RADOCC,
        **{f'student.{name}': value for name, value in {**SMALL, **DRAWS}.items()},
        **{f'losses.{name}.loss_weight': 0.0 for name in ('depth', 'semantics')},
    )
    distilled.student.load_state_dict(plain.state_dict())
    expected, state = train(plain), train(distilled)
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(state[name], value), name


def test_a_distilled_checkpoint_is_the_plain_students():
    distilled = build_model(RADOCC, seed=1)
    plain = build_model('projects/BEVFormerOcc/configs/bevformer-occ_tiny_1xb1-3e_synthetic.py')
    state = distilled.state_dict()
    plain.load_state_dict(state, strict=True)
    for name, value in plain.state_dict().items():
        assert torch.equal(state[name], value), name


@pytest.mark.slow
def test_the_student_is_tapped_and_learns_from_rendering():
    model = build_model(RADOCC, **{'teacher.checkpoint': None, 'renderer.max_rays': 300})
    inputs, samples = queue_batch((Drive(1), 2))
    samples[0].gt_occ = make_sample().gt_occ
    samples[0].gt_depth = torch.zeros(6, *inputs['imgs'].shape[-2:])
    samples[0].segments = torch.arange(6 * 4 * 5).view(6, 4, 5).int()
    inputs['points'] = [torch.rand(500, 5) * torch.tensor([40, 40, 4, 255, 0])]
    losses = model(inputs, samples, mode='loss')
    own = {'loss_occ'}
    assert own < losses.keys()
    assert all(loss.isfinite() for loss in losses.values())
    rendered = [losses[name] for name in losses.keys() - own]
    sum(loss for loss in rendered if loss.requires_grad).backward()
    head = model.student.pts_bbox_head
    assert head.transformer.predicter[2].weight.grad.any()
    assert head.bev_embedding.weight.grad.any()
