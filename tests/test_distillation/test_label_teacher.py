"""Labels as the teacher: the control of every rendered loss."""

import pytest
import torch
from tests.test_distillation.toy_distillation import batch_of, distilled

from radocc_plugin.distillation import LabelTeacher
from radocc_plugin.registry import MODELS


def labelled_config():
    config = distilled()
    config['teacher'] = dict(labels=dict(num_classes=4))
    return config


def test_its_logits_are_sure_of_the_label():
    _, samples = batch_of()
    teacher = LabelTeacher(4, confidence=0.97)
    samples[0].gt_occ.semantics[0, 0, 0] = 255
    logits = teacher.outputs({}, samples, torch.device('cpu')).occ_logits
    labels = torch.stack([s.gt_occ.semantics for s in samples]).long()
    labels[0, 0, 0, 0] = 3  # unlabelled counts as free
    chosen = logits.softmax(-1).gather(-1, labels[..., None])
    torch.testing.assert_close(chosen, torch.full_like(chosen, 0.97))


def test_a_student_learns_from_its_labels_along_the_rays():
    model = MODELS.build(labelled_config())
    losses = model(*batch_of(), mode='loss')
    assert losses['loss_rdc'] > 0.01
    losses['loss_rdc'].backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.student.parameters())


def test_frames_without_labels_are_named():
    inputs, samples = batch_of()
    samples[1].gt_occ.semantics.fill_(255)
    with pytest.raises(ValueError, match='0001sample has none'):
        MODELS.build(labelled_config())(inputs, samples, mode='loss')


@pytest.mark.parametrize(
    'change, match',
    [
        (dict(labels=dict(num_classes=4), model='x.py'), 'takes the place'),
        (dict(labels=dict(num_classes=4, confidence=0.2)), 'confidence.*0.2'),
    ],
)
def test_wrong_arguments_are_named(change, match):
    config = distilled()
    config['teacher'] = change
    with pytest.raises(ValueError, match=match):
        MODELS.build(config)


def test_a_label_beyond_the_classes_is_named():
    _, samples = batch_of()
    samples[0].gt_occ.semantics[0, 0, 0] = 7
    with pytest.raises(ValueError, match='num_classes=4.* is 7'):
        LabelTeacher(4).outputs({}, samples, torch.device('cpu'))
