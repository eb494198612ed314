"""What every distillation loss promises, whatever it compares."""

from dataclasses import replace

import pytest
import torch

from radocc_plugin.losses import (
    DistillBatch,
    DistillLoss,
    ModelOutputs,
    compared_part,
    distill_losses,
)
from radocc_plugin.registry import MODELS
from radocc_plugin.rendering import VoxelLight
from tests.support.autocast import CPU_AUTOCAST

SHAPE, CLASSES, FREE = (2, 4, 3, 2), 5, 4
CONFIGS = dict(
    rsc=dict(type='RenderedSemanticConsistency'),
    rsc_l2=dict(type='RenderedSemanticConsistency', distance='l2'),
    rsc_pixels=dict(type='RenderedSemanticConsistency', affinity='pixels', max_pairs=3),
    rsc_kl=dict(type='RenderedSemanticConsistency', affinity_weight=0.0, temperature=2.0),
    rdc_double_softmax=dict(type='RenderedDepthDoubleSoftmax'),
    rsc_elementwise=dict(type='RenderedSemanticElementwiseKL'),
    kd_over_x=dict(type='LogitsKDOverX'),
    kd=dict(type='LogitsKD', temperature=2.0),
    feature=dict(type='FeatureAlignment', visible_only=True),
    feature_l1=dict(type='FeatureAlignment', visible_only=True, distance='l1'),
    feature_surfaces=dict(type='FeatureAlignment', surfaces_only=True),
    cwd=dict(type='ChannelWiseDistillation'),
    cwd_feature=dict(type='ChannelWiseDistillation', compares='features'),
    affinity=dict(type='AffinityAlignment', num_instances=8, free_index=FREE),
    affinity_logits=dict(type='AffinityAlignment', compares='occ_logits', free_index=FREE),
    depth_map=dict(type='RenderedDepthMapAlignment'),
    depth_map_l1=dict(type='RenderedDepthMapAlignment', distance='l1'),
    depth_map_silog=dict(type='RenderedDepthMapAlignment', distance='silog'),
    depth_map_accumulated=dict(type='RenderedDepthMapAlignment', given_hit=False),
    rendered_ce=dict(type='RenderedCrossEntropy'),
    voxel=dict(type='RenderedVoxelConsistency', min_light=0.2),
    voxel_visible=dict(
        type='RenderedVoxelConsistency', min_light=0.2, cap=None, observed='mask_camera'
    ),
    voxel_free=dict(type='RenderedVoxelConsistency', min_light=0.2, free_factor=0.3),
    voxel_regions=dict(
        type='RenderedVoxelConsistency',
        light='ended',
        objects=(0, 1),
        occupied_only=True,
        min_light=0.2,
    ),
)
MASKED = ['kd', 'feature', 'feature_l1', 'cwd', 'cwd_feature', 'affinity', 'affinity_logits']
OPAQUE_ONLY = [
    'rsc_kl',
    'depth_map',
    'depth_map_l1',
    'depth_map_silog',
    'depth_map_accumulated',
    'rendered_ce',
]
every_loss = pytest.mark.parametrize('name', CONFIGS)


def build(name, **kwargs):
    config = dict(CONFIGS[name], **kwargs)
    config['type'] = f'radocc_plugin.{config["type"]}'
    return MODELS.build(config)


@pytest.fixture
def from_leaves(make_render):
    """Outputs of a model out of the tensors that training would change."""

    def make(logits, feature, optical_depth, semantics):
        return ModelOutputs(logits, dict(voxel=feature), make_render(optical_depth, semantics))

    return make


@pytest.fixture
def outputs(from_leaves):
    """Outputs of a model from a seed, and their leaves."""

    def make(seed, requires_grad=False, dtype=torch.float32):
        generator = torch.Generator().manual_seed(seed)
        leaves = [
            draw(*shape, generator=generator).to(dtype).requires_grad_(requires_grad)
            for draw, shape in [
                (torch.randn, (*SHAPE, CLASSES)),
                (torch.randn, (*SHAPE, CLASSES)),
                (torch.rand, (160,)),
                (torch.randn, (32, 4)),
            ]
        ]
        return from_leaves(*leaves), leaves

    return make


def make_batch(**changes):
    generator = torch.Generator().manual_seed(9)
    batch = DistillBatch(
        segments=torch.randint(0, 4, (2, 2, 4, 8), generator=generator),
        gt_occ=torch.randint(0, CLASSES, SHAPE, generator=generator),
        mask_camera=torch.rand(SHAPE, generator=generator) < 0.6,
        light=VoxelLight(*torch.rand(2, *SHAPE, generator=generator)),
        generator=generator,
    )
    return replace(batch, **changes)


def total(loss, student, teacher, batch=None):
    values = distill_losses(dict(own=loss), student, teacher, batch or make_batch())
    assert values and all('loss' in key for key in values)
    return sum(values.values())


def gradients(value, leaves):
    grads = torch.autograd.grad(value, leaves, allow_unused=True)
    return [grad for grad in grads if grad is not None]


@every_loss
def test_equal_models_cost_the_known_minimum(outputs, name):
    student, leaves = outputs(0, requires_grad=True)
    value = total(build(name), student, outputs(0)[0])
    minimum = 0.0
    if name == 'rendered_ce':
        best = student.render.semantics.log_softmax(1).max(1).values
        weight = 1 - student.render.no_hit
        minimum = float((-(best * weight).sum() / weight.sum()).detach())
    assert float(value.detach()) == pytest.approx(minimum, abs=1e-6)
    for grad in gradients(value, leaves):
        assert bool(grad.isfinite().all())
        assert name == 'rendered_ce' or float(grad.abs().max()) < 1e-4


@every_loss
def test_different_models_cost_more(outputs, name):
    same = total(build(name), outputs(0)[0], outputs(0)[0])
    different = total(build(name), outputs(1)[0], outputs(0)[0])
    assert float(different) > float(same) + 1e-7


@every_loss
def test_gradients_reach_the_student_only(outputs, name):
    student, student_leaves = outputs(0, requires_grad=True)
    teacher, teacher_leaves = outputs(1, requires_grad=True)
    value = total(build(name), student, teacher)
    value.backward()
    assert any(leaf.grad is not None and bool((leaf.grad != 0).any()) for leaf in student_leaves)
    assert all(leaf.grad is None for leaf in teacher_leaves)


@every_loss
def test_gradient_passes_gradcheck(outputs, from_leaves, name):
    _, leaves = outputs(0, requires_grad=True, dtype=torch.float64)
    teacher, _ = outputs(1, dtype=torch.float64)
    loss = build(name)
    assert torch.autograd.gradcheck(
        lambda *leaves: total(loss, from_leaves(*leaves), teacher), leaves, fast_mode=True
    )


@pytest.mark.parametrize('name', [*MASKED, 'voxel_visible'])
def test_hidden_voxels_do_not_count(outputs, name):
    student, _ = outputs(0)
    teacher, _ = outputs(1)
    value = total(build(name), student, teacher)
    hidden = ~make_batch().mask_camera[..., None]
    other = ModelOutputs(
        student.occ_logits + 5 * hidden, dict(voxel=student.features['voxel'] - 5 * hidden)
    )
    torch.testing.assert_close(total(build(name), other, teacher), value)


@pytest.mark.parametrize('name', MASKED)
def test_without_visible_voxels_the_loss_is_a_connected_zero(outputs, name):
    student, leaves = outputs(0, requires_grad=True)
    batch = make_batch(mask_camera=torch.zeros(SHAPE, dtype=torch.bool))
    value = total(build(name), student, outputs(1)[0], batch)
    assert float(value.detach()) == 0
    grads = gradients(value, leaves)
    assert grads and all(bool((grad == 0).all()) for grad in grads)


@pytest.mark.parametrize('name', OPAQUE_ONLY)
def test_rays_that_the_teacher_does_not_stop_do_not_count(outputs, name):
    student, leaves = outputs(0, requires_grad=True)
    teacher, _ = outputs(1)
    teacher.render.no_hit = torch.ones(32)
    value = total(build(name), student, teacher)
    assert float(value.detach()) == 0
    grads = gradients(value, leaves)
    assert grads and all(bool((grad == 0).all()) for grad in grads)


@pytest.mark.parametrize('name', ['rsc', 'rsc_l2', 'rsc_pixels'])
def test_rays_outside_segments_do_not_count_in_the_affinity(outputs, name):
    loss = build(name, kl_weight=0.0)
    student, leaves = outputs(0, requires_grad=True)
    segments = make_batch().segments
    total(loss, student, outputs(1)[0]).backward()
    inside = student.render.geometry.rays.gather_maps(segments) > 0
    grad = student.render.semantics.grad
    assert bool((grad[~inside] == 0).all()) and bool((grad != 0).any())
    empty = make_batch(segments=torch.zeros_like(segments))
    value = total(loss, student, outputs(1)[0], empty)
    assert float(value.detach()) == 0
    assert all(bool((g == 0).all()) for g in gradients(value, leaves))


@every_loss
@pytest.mark.parametrize('dtype', CPU_AUTOCAST)
def test_autocast_computes_in_float32(outputs, name, dtype):

    def half(model, as_dtype):
        fields = {
            key: value.to(dtype).to(as_dtype) if isinstance(value, torch.Tensor) else value
            for key, value in vars(model.render).items()
        }
        return ModelOutputs(
            model.occ_logits.mul(500).to(dtype).to(as_dtype),
            dict(voxel=model.features['voxel'].mul(500).to(dtype).to(as_dtype)),
            type(model.render)(**fields),
        )

    loss = build(name)
    student, teacher = outputs(0)[0], outputs(1)[0]
    with torch.autocast('cpu', dtype=dtype):
        value = total(loss, half(student, dtype), half(teacher, dtype))
    expected = total(loss, half(student, torch.float), half(teacher, torch.float))
    assert value.dtype == torch.float32 and bool(value.isfinite())
    # 1 - no_hit is taken in half precision by the modules.
    torch.testing.assert_close(value, expected, rtol=1e-2, atol=1e-6)


@every_loss
def test_shapes_that_disagree_are_named(outputs, name):
    student, teacher = outputs(0)[0], outputs(1)[0]
    render = teacher.render
    fields = {
        key: value[:3] if isinstance(value, torch.Tensor) else value
        for key, value in vars(render).items()
    }
    wrong = ModelOutputs(
        teacher.occ_logits[:, :2],
        dict(voxel=teacher.features['voxel'][:, :2]),
        type(render)(**fields),
    )
    with pytest.raises(ValueError, match='teacher.* takes? shape'):
        total(build(name), student, wrong)


@every_loss
def test_what_is_missing_is_named(outputs, name):
    loss = build(name)
    if compared_part(loss) in ('render', 'features'):
        bare = ModelOutputs(outputs(0)[0].occ_logits)
        with pytest.raises(ValueError, match=type(loss).__name__):
            total(loss, bare, bare)
    for need in loss.needs:
        with pytest.raises(ValueError, match=f'needs {need}'):
            total(loss, outputs(0)[0], outputs(1)[0], make_batch(**{need: None}))


@every_loss
def test_only_what_a_loss_needs_is_asked_for(outputs, name):
    loss = build(name)
    batch = make_batch()
    only = DistillBatch(**{need: getattr(batch, need) for need in loss.needs})
    part = dict(
        render=dict(render=None), occ_logits=dict(occ_logits=None), features=dict(features={})
    )
    del part[dict(outputs='occ_logits').get(loss.compares, loss.compares)]
    empty = {k: v for fields in part.values() for k, v in fields.items()}
    models = [replace(outputs(seed)[0], **empty) for seed in (0, 1)]
    torch.testing.assert_close(
        total(loss, *models, only), total(loss, outputs(0)[0], outputs(1)[0])
    )


@every_loss
def test_the_students_random_numbers_are_left_alone(outputs, name):
    before = torch.get_rng_state()
    total(build(name), outputs(0)[0], outputs(1)[0])
    assert torch.equal(torch.get_rng_state(), before)


@every_loss
def test_the_weight_multiplies_the_loss(outputs, name):
    student, teacher = outputs(0)[0], outputs(1)[0]
    one = total(build(name, loss_weight=1.0), student, teacher)
    for weight in (0.0, 2.5):
        torch.testing.assert_close(
            total(build(name, loss_weight=weight), student, teacher), weight * one
        )
    with pytest.raises(ValueError, match='loss_weight'):
        build(name, loss_weight=-1.0)


def test_two_losses_of_one_type_need_two_names(outputs):
    student, teacher = outputs(0)[0], outputs(1)[0]
    pair = dict(warm=build('kd', temperature=3.0, loss_name='loss_warm_kd'), cold=build('kd'))
    values = distill_losses(pair, student, teacher, make_batch())
    assert set(values) == {'loss_warm_kd', 'loss_logits_kd'}
    pair['warm'] = build('kd')
    with pytest.raises(ValueError, match='losses.cold.*loss_name'):
        distill_losses(pair, student, teacher, make_batch())
    with pytest.raises(ValueError, match='must contain "loss"'):
        build('kd', loss_name='kd')


def test_a_loss_of_ones_own_fits_the_slot(outputs):

    class OpacityGap(DistillLoss):
        def forward(self, student, teacher, batch):
            gap = (student.no_hit - teacher.no_hit.detach()).abs().mean()
            return dict(loss_opacity=self.loss_weight * gap)

    value = total(OpacityGap(2.0), outputs(0)[0], outputs(1)[0])
    expected = outputs(0)[0].render.no_hit - outputs(1)[0].render.no_hit
    torch.testing.assert_close(value, 2 * expected.abs().mean())


def test_unknown_features_list_the_known_ones(outputs):
    loss = build('cwd_feature', feature='bev')
    with pytest.raises(ValueError, match=r"\['voxel'\].*'bev'"):
        total(loss, outputs(0)[0], outputs(1)[0])
