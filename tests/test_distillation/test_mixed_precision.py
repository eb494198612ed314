"""Every family of students distils under autocast, as ``--amp`` does."""

import copy

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

from radocc_plugin.registry import DATASETS, MODELS
from tests.support.models import load_config, make_world

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp('world'), frames=3)


def step(config, batch, dtype=None):
    """Losses of one step in float32, or under autocast to ``dtype``, the
    gradients of the student, and RadOcc's losses of the same logits without
    autocast."""
    torch.manual_seed(0)
    np.random.seed(0)
    model = MODELS.build(config.model).train()
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    calls = []
    consistency = model.consistency

    def recorded(*args):
        calls.append(args)
        return consistency(*args)

    model.consistency = recorded
    with torch.autocast('cpu', dtype=dtype, enabled=dtype is not None):
        losses = model(**data, mode='loss')
    sum(losses.values()).backward()
    gradients = {
        name: parameter.grad
        for name, parameter in model.student.named_parameters()
        if parameter.grad is not None
    }
    with torch.no_grad():
        ours = consistency(*calls[0])
    return {name: loss.detach() for name, loss in losses.items()}, gradients, ours


@pytest.mark.parametrize(
    'name',
    [
        'bevdet-occ_tiny_1xb1-3e_synthetic',
        'bevdet-occ_tiny-4d-stereo_1xb1-3e_synthetic',
        'flashocc_tiny_1xb1-3e_synthetic',
        'bevformer-occ_tiny_1xb1-3e_synthetic',
        'fbocc_tiny_1xb1-3e_synthetic',
    ],
)
def test_half_precision_gives_nearly_the_losses_of_float32(name, world):
    """RadOcc's own are those of float32 for the logits at hand; the others move
    with what the networks round, by a few percent."""
    config = load_config(f'configs/radocc/radocc_{name}.py')
    config.merge_from_dict(
        {
            'model.teacher.checkpoint': None,
            'model.renderer.max_rays': 2000,
            'train_dataloader.dataset.data_root': str(world),
        }
    )
    init_default_scope('mmdet3d')
    dataset = DATASETS.build(config.train_dataloader.dataset)
    np.random.seed(0)
    batch = pseudo_collate([dataset[0]])
    full, full_grads, _ = step(config, batch)
    half, half_grads, ours = step(config, batch, torch.float16)
    assert {'loss_rdc', 'loss_rsc_kl'} < half.keys()
    assert all(loss.dtype == torch.float32 for loss in half.values())
    for name, loss in ours.items():
        assert float(half[name]) == pytest.approx(float(loss), rel=1e-6), name
    half, full = ({k: float(v) for k, v in losses.items()} for losses in (half, full))
    # a small difference of squares, whose relative error says little
    half_affinity, full_affinity = (x.pop('loss_rsc_affinity', 0.0) for x in (half, full))
    assert half_affinity == pytest.approx(full_affinity, abs=0.004)
    assert half == pytest.approx(full, rel=0.15) and half != full
    assert half_grads.keys() == full_grads.keys()
    for parameter, grad in half_grads.items():
        assert grad.isfinite().all(), parameter
        assert grad.any() or not full_grads[parameter].any(), parameter
