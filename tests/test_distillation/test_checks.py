"""Mistakes are named; NaN and infinity never pass in silence."""

import pytest
import torch
from mmengine.logging import MessageHub

from radocc_plugin.distillation.checks import describe_nonfinite
from radocc_plugin.losses import ModelOutputs
from radocc_plugin.registry import MODELS
from tests.test_distillation.toy_distillation import (
    FEATURES,
    SHAPE,
    TAP,
    batch_of,
    distilled,
    feature_loss,
)


def step(config, batch=None):
    model = MODELS.build(config).eval()
    return model(*(batch or batch_of()), mode='loss')


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(student_tap=dict(module='haed')), "'haed'.*head"),
        (dict(student_features=dict(hidden=dict(module='encoder'))), "'encoder'.*encode"),
        (
            dict(losses=dict(feature=feature_loss())),
            r"losses.feature.feature.*'hidden'.*student_features has \[\]",
        ),
        (
            dict(FEATURES, teacher_features={}, losses=dict(feature=feature_loss())),
            r'teacher_features has \[\]',
        ),
        (
            dict(FEATURES, losses=dict(feature=dict(feature_loss(), feature='hiden'))),
            r"'hiden'.*\['hidden'\]",
        ),
        (dict(nonfinite='ignore'), 'nonfinite.*error.*skip'),
        (
            dict(renderer=dict(distilled()['renderer'], views=('sensor', 'above'))),
            r"renderer.views takes \('sensor',\) with semantics",
        ),
        (dict(student_tap=dict(module='head', layout='b x y z')), 'tap.layout'),
    ],
)
def test_mistakes_fail_at_build_with_the_choices(options, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(distilled(**options))


def test_unknown_loss_type_is_named():
    losses = dict(depth=dict(type='radocc_plugin.RenderedDepthConsistensy'))
    with pytest.raises(KeyError, match='RenderedDepthConsistensy'):
        MODELS.build(distilled(losses=losses))


@pytest.mark.parametrize(
    'tap, message',
    [
        (dict(TAP, class_order=[0, 1, 2]), 'student have classes.*4.*3.*class_o'),
        (dict(TAP, class_order=[0, 1, 2, 4]), 'class_order.*4 classes'),
        (dict(TAP, axes=dict(c=4, x=5, y=10)), 'a grid.*5, 10, 8'),
        (dict(TAP, axes=dict(c=4, x=7, y=10)), 'head.*does not fit'),
        (dict(TAP, module='hed'), "'hed'.*head"),
    ],
)
def test_teacher_that_does_not_fit_is_named_at_the_first_step(teacher, tap, message):
    config = distilled(teacher)
    config['teacher']['tap'] = tap
    with pytest.raises(ValueError, match=message):
        step(config)


@pytest.mark.parametrize(
    'options, message',
    [
        (
            dict(rsc=0.0, renderer=dict(ray_sampler='segments')),
            "ray_sampler='segments' needs segments.*LoadSegments",
        ),
        (dict(), 'RenderedSemanticConsistency needs segments.*LoadSegments'),
    ],
)
def test_missing_segments_are_named(teacher, options, message):
    changed = options.pop('renderer', {})
    config = distilled(teacher, **options)
    config['renderer'].update(changed)
    inputs, samples = batch_of()
    for sample in samples:
        del sample.segments
    with pytest.raises(ValueError, match=message):
        step(config, (inputs, samples))


def test_rays_by_segment_need_no_loss_that_asks_for_segments(teacher):
    config = distilled(teacher, rsc=0.0)
    config['renderer']['ray_sampler'] = 'segments'
    assert step(config)['loss_rdc'] > 0


def test_loss_of_the_student_is_never_overwritten(teacher):
    config = distilled(teacher)
    config['losses']['depth']['loss_name'] = 'loss_occ'
    with pytest.raises(ValueError, match="'loss_occ'.*loss_name"):
        step(config)


def poison(model, who, value):
    """Makes the head of one model return ``value`` in its second sample."""
    head = model.student.head if who == 'student' else model.teacher.model(torch.device('cpu')).head

    def spoil(module, args, output):
        output = output.clone()
        output[1, 3] = value
        return output

    head.register_forward_hook(spoil)


@pytest.mark.parametrize('who', ['student', 'teacher'])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_nonfinite_logits_name_model_and_sample(teacher, who, value):
    model = MODELS.build(distilled(teacher)).eval()
    poison(model, who, value)
    kind = 'NaN' if value != value else 'infinity'
    with pytest.raises(
        FloatingPointError, match=f'{kind} in occ_logits of the {who}, sample 0001sample;'
    ):
        model(*batch_of(), mode='loss')


@pytest.mark.parametrize('dtype, large', [(torch.float16, 6e4), (torch.float32, 3e38)])
def test_large_numbers_are_finite_even_if_their_sum_is_not(dtype, large):
    logits = ModelOutputs(torch.full((1, *SHAPE, 4), large, dtype=dtype))
    assert describe_nonfinite(logits, logits, batch_of()[1]) is None


def test_skipped_distillation_is_counted_and_logged(teacher):
    """The student's own losses and gradients stay."""
    model = MODELS.build(distilled(teacher, feature=1.0, nonfinite='skip')).eval()
    hub = MessageHub.get_current_instance()
    finite = model(*batch_of(), mode='loss')
    assert hub.get_info('distill_skipped') == 0
    poison(model, 'teacher', float('nan'))
    losses = model(*batch_of(), mode='loss')
    assert hub.get_info('distill_skipped') == 1
    assert hub.get_scalar('train/distill/skipped').current() == 1
    assert losses.keys() == finite.keys() | {'loss_distill_resting'}
    assert losses['loss_occ'] == finite['loss_occ']
    ours = losses.keys() - {'loss_occ'}
    assert all(losses[key] == 0 for key in ours)
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_shapes_of_volumes_are_told():
    model = MODELS.build(distilled())
    a, b = torch.zeros(1, *SHAPE, 4), torch.zeros(2, *SHAPE, 4)
    with pytest.raises(ValueError, match='batch size.*1.*2'):
        model.consistency(ModelOutputs(a), ModelOutputs(b), batch_of()[1])
