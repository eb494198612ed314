"""Taps of features, and what losses learn themselves."""

import pytest
import torch
from mmengine.runner import load_checkpoint

from radocc_plugin.distillation import FeatureTap
from radocc_plugin.losses import ModelOutputs
from radocc_plugin.registry import MODELS
from tests.test_distillation.toy_distillation import (
    FEATURES,
    SHAPE,
    STUDENT,
    ToyOccStudent,
    assert_same_weights,
    batch_of,
    distilled,
    feature_loss,
    run,
)

ADAPTER = {'distill.feature.adapter.weight', 'distill.feature.adapter.bias'}


def test_adapters_train_and_are_saved_beside_the_plain_student(tmp_path, teacher):
    config = distilled(teacher, feature=1.0)
    initial = MODELS.build(config).state_dict()
    trained = run(tmp_path, config).model
    state = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    saved = state['state_dict']
    assert saved.keys() == ToyOccStudent().state_dict().keys() | ADAPTER
    for name in ADAPTER:
        assert not torch.equal(initial[name], saved[name])
    student = ToyOccStudent()
    load_checkpoint(student, str(tmp_path / 'epoch_2.pth'))
    assert_same_weights(student.state_dict(), trained.student.state_dict())
    again = MODELS.build(config)
    load_checkpoint(again, str(tmp_path / 'epoch_2.pth'), strict=True)
    assert_same_weights(again.state_dict(), trained.state_dict())


@pytest.mark.parametrize(
    'hook',
    [
        dict(type='EMAHook', momentum=0.01),
        dict(type='radocc_plugin.MEGVIIEMAHook', init_updates=1000),
    ],
    ids=['mmengine', 'published'],
)
def test_ema_keeps_the_average_of_adapters_and_resumes(tmp_path, teacher, hook):
    config = distilled(teacher, feature=1.0)
    config['student'] = dict(STUDENT, plain=True)
    unbroken = run(tmp_path, config, custom_hooks=[hook]).model
    run(tmp_path / 'resumed', config, epochs=1, custom_hooks=[hook])
    resumed = run(tmp_path / 'resumed', config, custom_hooks=[hook], resume=True).model
    assert_same_weights(unbroken.state_dict(), resumed.state_dict())
    again = torch.load(tmp_path / 'resumed/epoch_2.pth', weights_only=False)
    state = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    for name in ('state_dict', 'ema_state_dict'):
        assert_same_weights(state[name], again[name])
    names = ToyOccStudent(plain=True).state_dict().keys() | ADAPTER
    averaged = state['ema_state_dict'].keys()
    assert {f'module.{name}' for name in names} < averaged
    assert state['state_dict'].keys() == names


def test_parameter_wise_rules_match_as_for_the_plain_student(tmp_path, teacher):
    rules = dict(
        paramwise_cfg=dict(
            norm_decay_mult=0.0,
            bias_lr_mult=2.0,
            custom_keys={'encode.0': dict(lr_mult=0.1), 'head': dict(decay_mult=0.5)},
        )
    )

    def settings(work_dir, config):
        runner = run(work_dir, config, epochs=1, optim=rules)
        groups = runner.optim_wrapper.optimizer.param_groups
        by_id = {id(g['params'][0]): (g['lr'], g['weight_decay']) for g in groups}
        return {
            name.replace('student.', '', 1): by_id[id(parameter)]
            for name, parameter in runner.model.named_parameters()
        }

    plain = settings(tmp_path / 'plain', STUDENT)
    ours = settings(tmp_path / 'ours', distilled(teacher, feature=1.0))
    assert len(set(plain.values())) == 3
    assert {name: ours[name] for name in plain} == plain
    assert len(ours) == len(plain) + len(ADAPTER)


def test_feature_gradients_reach_the_student_only(teacher):
    model = MODELS.build(distilled(teacher, losses=dict(feature=feature_loss()), **FEATURES))
    losses = model.train()(*batch_of(), mode='loss')
    losses['loss_feature'].backward()
    assert model.student.encode[0].weight.grad.abs().sum() > 0
    assert model.student.head.weight.grad is None
    inner = model.teacher.model(torch.device('cpu'))
    assert all(p.grad is None for p in inner.parameters())


@pytest.mark.parametrize(
    'layout, shape, expected',
    [
        ('b c y x', (2, 5, 3, 4), (2, 4, 3, 5)),
        ('b (c z) y x', (2, 10, 3, 4), (2, 4, 3, 2, 5)),
        ('(b n) c h w -> b n h w c', (12, 5, 3, 4), (2, 6, 3, 4, 5)),
        ('b c', (2, 5), (2, 5)),
    ],
)
def test_features_come_out_channels_last(layout, shape, expected):
    tap = FeatureTap('neck', layout, axes=dict(c=5, n=6))
    used = {k: v for k, v in tap.axes.items() if k in layout.split('->')[0]}
    tap.axes = used
    values = torch.arange(torch.Size(shape).numel()).view(shape)
    out = tap.read([values])
    assert out.shape == expected
    assert sorted(out.flatten().tolist()) == values.flatten().tolist()


@pytest.mark.parametrize(
    'layout', ['c x y', 'b x y', 'b c x x', 'b c n h w', 'b c h w -> b c h w', 'b c h w -> b h c']
)
def test_layouts_of_features_that_do_not_fit_are_named(layout):
    with pytest.raises(ValueError, match='tap.layout'):
        tap = FeatureTap('neck', layout)
        tap.read([torch.zeros(2, 3, 4, 5, 6)[:, :, :, 0]])


def test_calls_and_items_are_chosen_by_index():
    calls = [torch.full((1, 1), float(i)) for i in range(3)]
    read = {
        index: FeatureTap('neck', 'b c', call_index=index).read(calls).item()
        for index in (0, 1, -1)
    }
    assert read == {0: 0, 1: 1, -1: 2}
    item = FeatureTap('neck', 'b c', output_index='fine')
    assert item.read([dict(fine=calls[1])]).item() == 1


@pytest.mark.parametrize(
    'options, calls, message',
    [
        (dict(call_index=3), [0], 'call_index.*-1, 0'),
        (dict(output_index=2), [(0, 0)], 'output_index.*-2, -1, 0, 1'),
        (dict(output_index='a'), [dict(b=0)], "output_index.*'b'"),
        (dict(output_index=0), [torch.zeros(2, 3)], 'output_index.*None only'),
        (dict(), [(0, 0)], 'set tap.output_index'),
    ],
)
def test_wrong_indices_are_named_with_the_choices(options, calls, message):
    with pytest.raises(ValueError, match=message):
        FeatureTap('neck', 'b c', **options).read(calls)


def test_a_tapped_density_head_is_rendered(teacher):
    config = distilled(teacher)
    config['renderer']['density'] = 'head'
    model = MODELS.build(config)
    logits = torch.randn(2, *SHAPE, 4)
    heads = [torch.randn(2, *SHAPE, 1, requires_grad=True) for _ in range(2)]
    samples = batch_of()[1]
    student, target = (ModelOutputs(logits, dict(density=head)) for head in heads)
    losses = model.consistency(student, target, samples)
    losses['loss_rdc'].backward()
    assert bool(heads[0].grad.any()) and heads[1].grad is None
    with pytest.raises(ValueError, match='student_features'):
        model.consistency(ModelOutputs(logits), target, samples)
