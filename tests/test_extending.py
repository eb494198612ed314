"""The fifth student of docs/extending.md, as its readers would type it."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS

PAGE = Path(__file__).resolve().parents[1] / 'docs' / 'extending.md'


@pytest.fixture(scope='module')
def page():
    """The names that the page's Python blocks leave behind."""
    blocks = re.findall(r'^```python\n(.*?)^```', PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    names = {}
    try:
        for block in blocks:
            exec(compile(block, str(PAGE), 'exec'), names)
        yield names
    finally:
        MODELS.module_dict.pop('MyOccNet', None)


def test_gradients_of_radocc_reach_the_first_layer(page):
    assert page['losses'].keys() >= {'loss_occ', 'loss_rdc'}
    assert all(loss.isfinite() for loss in page['losses'].values())
    assert page['gradient'].isfinite().all() and page['gradient'].norm() > 0
    assert not any(
        p.requires_grad and p.grad is not None
        for n, p in page['distiller'].named_parameters()
        if n.startswith('teacher')
    )


def test_one_training_step_changes_the_student(page):
    distiller = page['distiller']
    before = {k: v.clone() for k, v in distiller.state_dict().items()}
    data = dict(inputs=page['batch'], data_samples=[page['made_up_sample']() for _ in range(2)])
    optimizer = OptimWrapper(torch.optim.SGD(distiller.parameters(), lr=0.1))
    log = distiller.train_step(data, optimizer)
    assert torch.isfinite(log['loss'])
    after = distiller.state_dict()
    assert any((after[k] != before[k]).any() for k in before)
    plain = MODELS.build(dict(type='MyOccNet'))
    assert after.keys() == plain.state_dict().keys()


def test_the_tap_gives_our_axes_and_classes(page):
    """By the model's own mode 'tensor': b c z y x, free first."""
    distiller = page['distiller'].eval()
    with torch.no_grad(), distiller.student_tap.record(distiller.student) as outputs:
        own = distiller.student(page['batch'])
    tapped = distiller.student_tap.read(outputs)
    shape = tuple(page[name] for name in ('X', 'Y', 'Z', 'CLASSES'))
    assert tuple(tapped.shape) == (2, *shape)
    x, y, z = 7, 2, 3
    assert torch.equal(tapped[:, x, y, z, -1], own[:, 0, z, y, x])
    assert torch.equal(tapped[:, x, y, z, :3], own[:, 1:, z, y, x])
