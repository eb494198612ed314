"""A student that starts from modules which it shares with its teacher."""

import pytest
import torch
from tests.test_distillation.toy_distillation import distilled

from radocc_plugin.registry import MODELS


def build(teacher, *modules, **changes):
    config = distilled(teacher)
    config['teacher'].update(changes)
    torch.manual_seed(1)
    model = MODELS.build(dict(config, init_from_teacher=modules))
    model.init_weights()
    return model.student.state_dict()


def test_named_modules_are_the_teachers_where_shapes_agree(teacher):
    """The toy teacher is wider than its student."""
    theirs = torch.load(teacher)
    theirs = theirs.get('state_dict', theirs)
    before, after = build(teacher), build(teacher, 'head')
    taken = ['head.bias']
    assert theirs['head.weight'].shape != after['head.weight'].shape
    for name, value in after.items():
        expected = theirs[name] if name in taken else before[name]
        assert torch.equal(value, expected), name
    assert not torch.equal(theirs['head.bias'], before['head.bias'])


def test_a_module_that_takes_nothing_is_named(teacher):
    with pytest.raises(ValueError, match="'neck'.*none of 0.*has .*'head'"):
        build(teacher, 'head', 'neck')


def test_a_teacher_without_a_checkpoint_is_refused(teacher):
    with pytest.raises(ValueError, match='teacher.checkpoint is None'):
        build(teacher, 'head', checkpoint=None)
