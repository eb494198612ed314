"""Compared alignments against loops, laws and their published numbers."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from radocc_plugin.losses import (
    DistillBatch,
    ModelOutputs,
    affinity_alignment,
    channel_wise_kl,
    depth_map_distance,
    distill_losses,
    feature_distance,
    inter_channel_affinity,
    inter_instance_affinity,
    logits_kd,
    rendered_cross_entropy,
    scale_invariant_log,
)
from radocc_plugin.registry import MODELS
from radocc_plugin.rendering import VoxelLight


def pair(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator), torch.randn(*shape, generator=generator))


def test_logits_kd_equals_a_loop_over_visible_voxels():
    student, teacher = pair(2, 3, 2, 2, 5)
    mask = torch.arange(24).view(2, 3, 2, 2) % 3 == 0
    voxels = [
        F.kl_div((s / 4).log_softmax(0), (t / 4).softmax(0), reduction='sum')
        for s, t in zip(student[mask], teacher[mask])
    ]
    torch.testing.assert_close(
        logits_kd(student, teacher, mask, 4.0), 16 * torch.stack(voxels).mean()
    )


def test_logits_kd_does_not_feel_a_shift_of_all_classes():
    student, teacher = pair(1, 3, 2, 2, 5)
    torch.testing.assert_close(
        logits_kd(student + torch.randn(1, 3, 2, 2, 1), teacher), logits_kd(student, teacher)
    )


def test_channel_wise_kl_equals_a_loop_over_channels():
    student, teacher = pair(2, 3, 2, 2, 5)
    mask = torch.arange(24).view(2, 3, 2, 2) % 3 > 0
    channels = [
        F.kl_div(
            (student[b][mask[b]][:, c] / 4).log_softmax(0),
            (teacher[b][mask[b]][:, c] / 4).softmax(0),
            reduction='sum',
        )
        for b in range(2)
        for c in range(5)
    ]
    torch.testing.assert_close(
        channel_wise_kl(student, teacher, mask), 16 * torch.stack(channels).mean()
    )


@pytest.mark.parametrize('kind, reference', [('l1', F.l1_loss), ('l2', F.mse_loss)])
def test_feature_distance_is_a_mean_over_visible_cells(kind, reference):
    student, teacher = pair(2, 3, 2, 4)
    mask = torch.arange(12).view(2, 3, 2) % 3 > 0
    torch.testing.assert_close(
        feature_distance(student, teacher, mask, kind), reference(student[mask], teacher[mask])
    )


def test_feature_distance_weighs_cells():
    student, teacher = pair(2, 3, 2, 4)
    weight = torch.arange(12).view(2, 3, 2).to(student)
    each = (student - teacher).square().mean(-1)
    torch.testing.assert_close(
        feature_distance(student, teacher, weight=weight), (each * weight).sum() / weight.sum()
    )
    twos = torch.full_like(weight, 2)
    mask = weight > 3
    torch.testing.assert_close(
        feature_distance(student, teacher, mask, weight=twos),
        feature_distance(student, teacher, mask),
    )
    with pytest.raises(ValueError, match='weight .*student'):
        feature_distance(student, teacher, weight=weight[0])


def test_features_at_surfaces_weigh_by_the_light_that_ends_there():
    student, teacher = pair(1, 3, 2, 2, 4)
    ended = torch.arange(12).view(1, 3, 2, 2) / 6
    loss = MODELS.build(dict(type='FeatureAlignment', surfaces_only=True))
    outputs = [ModelOutputs(volume, dict(voxel=volume)) for volume in (student, teacher)]
    batch = DistillBatch(light=VoxelLight(ended + 1, ended))
    found = distill_losses(dict(own=loss), *outputs, batch)['loss_feature']
    torch.testing.assert_close(found, feature_distance(student, teacher, weight=ended.clamp_max(1)))


def feature_loss(student, teacher, **kwargs):
    loss = MODELS.build(dict(type='FeatureAlignment', **kwargs))
    outputs = [ModelOutputs(volume, dict(voxel=volume)) for volume in (student, teacher)]
    return loss, lambda: distill_losses(dict(own=loss), *outputs, DistillBatch())['loss_feature']


def test_adapter_is_a_1x1x1_convolution_that_training_fits():
    student, teacher = pair(1, 4, 3, 2, 6)
    teacher = teacher[..., :5]
    loss, value = feature_loss(student, teacher, student_channels=6, teacher_channels=5)
    names = {name: tuple(p.shape) for name, p in loss.named_parameters()}
    assert names == {'adapter.weight': (5, 6), 'adapter.bias': (5,)}
    convolution = F.conv3d(
        student.movedim(-1, 1), loss.adapter.weight[..., None, None, None], loss.adapter.bias
    )
    torch.testing.assert_close(value(), F.mse_loss(convolution, teacher.movedim(-1, 1)))
    first = float(value().detach())
    optimizer = torch.optim.SGD(loss.parameters(), 0.5)
    for _ in range(50):
        optimizer.zero_grad()
        value().backward()
        optimizer.step()
    assert float(value().detach()) < 0.9 * first


def test_adapter_draws_leave_the_students_random_numbers_alone():
    state = torch.get_rng_state()
    feature_loss(*pair(1, 2, 3), student_channels=3, teacher_channels=2)
    assert torch.equal(torch.get_rng_state(), state)


def test_channels_that_disagree_tell_the_right_numbers():
    student, teacher = pair(1, 4, 6)[0], pair(1, 4, 5)[1]
    for kwargs in ({}, dict(student_channels=5, teacher_channels=6)):
        _, value = feature_loss(student, teacher, **kwargs)
        with pytest.raises(ValueError, match='must be 6 and 5'):
            value()
    with pytest.raises(ValueError, match='two numbers or None twice'):
        feature_loss(student, teacher, student_channels=6)


@pytest.mark.parametrize('matrix', [inter_instance_affinity, inter_channel_affinity])
def test_affinity_alignment_is_the_authors_mean_square_times_columns(matrix):
    student, teacher = pair(7, 4)
    grams = [
        F.normalize(f @ f.t() if matrix is inter_instance_affinity else f.t() @ f, dim=-1)
        for f in (student, teacher)
    ]
    torch.testing.assert_close(
        affinity_alignment(student, teacher, matrix), F.mse_loss(*grams) * grams[0].shape[1]
    )
    # Instances come in any order.
    order = torch.randperm(7)
    torch.testing.assert_close(
        affinity_alignment(student[order], teacher[order], matrix),
        affinity_alignment(student, teacher, matrix),
    )
    # Neither model's scale matters.
    torch.testing.assert_close(
        affinity_alignment(3 * student, 5 * teacher, matrix),
        affinity_alignment(student, teacher, matrix),
    )


def test_inter_instance_affinity_takes_models_of_different_width():
    student, teacher = pair(7, 4)[0], pair(7, 9)[1]
    value = affinity_alignment(student, teacher, inter_instance_affinity)
    assert 0 < float(value) < 4
    with pytest.raises(ValueError, match='inter_channel_affinity of teacher'):
        affinity_alignment(student, teacher, inter_channel_affinity)


@pytest.mark.parametrize(
    'kind, reference',
    [('l1', F.l1_loss), ('smooth_l1', F.smooth_l1_loss), ('silog', scale_invariant_log)],
)
def test_depth_map_distance_counts_valid_rays(kind, reference):
    student, teacher = (x.abs() + 1 for x in pair(20))
    valid = torch.arange(20) % 3 > 0
    torch.testing.assert_close(
        depth_map_distance(student, teacher, valid, kind), reference(student[valid], teacher[valid])
    )


@pytest.mark.parametrize('given_hit', [True, False])
def test_accumulated_depth_shrinks_with_the_opacity(given_hit):
    loss = MODELS.build(
        dict(type='RenderedDepthMapAlignment', loss_weight=1.0, distance='l1', given_hit=given_hit)
    )
    # Both surfaces at 10 m; the student lets half of the light through.
    student, teacher = (
        SimpleNamespace(
            depth=10 * opacity, depth_given_hit=torch.full((4,), 10.0), no_hit=1 - opacity
        )
        for opacity in (torch.full((4,), 0.5), torch.ones(4))
    )
    value = loss(student, teacher, batch=None)['loss_depth_map']
    assert float(value) == (0 if given_hit else 5)


def test_silog_forgives_the_scale_as_its_focus_says():
    _, teacher = (x.abs() + 1 for x in pair(20))
    assert float(scale_invariant_log(2 * teacher, teacher, 1.0)) < 1e-3
    # d is ln 2 everywhere.
    assert float(scale_invariant_log(2 * teacher, teacher, 0.75)) == (
        pytest.approx(0.5 * 0.6931, rel=1e-3)
    )


def test_silog_of_equal_depths_has_a_zero_gradient():
    teacher = torch.rand(20) + 1
    student = teacher.clone().requires_grad_()
    loss = scale_invariant_log(student, teacher)
    loss.backward()
    assert float(loss.detach()) == 0 and bool((student.grad == 0).all())


def test_rendered_cross_entropy_takes_the_teachers_best_class():
    student, teacher = pair(30, 6)
    weight = torch.rand(30)
    each = F.cross_entropy(student, teacher.argmax(1), reduction='none')
    torch.testing.assert_close(
        rendered_cross_entropy(student, teacher, weight), (each * weight).sum() / weight.sum()
    )


@pytest.mark.parametrize(
    'config',
    [
        dict(type='RenderedDepthMapAlignment', distance='l3'),
        dict(type='FeatureAlignment', distance='smooth_l1'),
        dict(type='ChannelWiseDistillation', compares='render'),
        dict(type='AffinityAlignment', compares='logits', free_index=3),
    ],
)
def test_unknown_choices_are_named(config):
    with pytest.raises(ValueError, match=f'{config["type"]}.*takes one of'):
        MODELS.build(config)


def test_adapter_counts_as_a_part_of_the_loss():
    loss, _ = feature_loss(*pair(1, 2, 3), student_channels=3, teacher_channels=2)
    slot = nn.ModuleDict(dict(feature=loss))
    assert set(slot.state_dict()) == {'feature.adapter.weight', 'feature.adapter.bias'}
