"""Numbers of the reference implementations: values and gradients."""

import pytest
import torch

from radocc_plugin.losses import (
    class_balanced_weights,
    class_kl,
    elementwise_semantic_kl,
    kd_kl_div,
    masked_cross_entropy,
    packed_double_softmax_kl,
    radial_weights,
    scale_invariant_log,
    zero_nonfinite,
)
from radocc_plugin.registry import MODELS

IGNORED = 255


def build(kind, classes=19, **kwargs):
    """The registered loss of a kind, as FB-OCC sets it up for 19 classes."""
    config = dict(
        lovasz=dict(type='OccLovasz'),
        geo_scal=dict(type='OccGeoScal'),
        sem_scal=dict(type='OccSemScal', void_index=0 if classes == 19 else None),
        ce_ssc=dict(type='OccCrossEntropy'),
        focal=dict(type='OccFocal', class_weight='balanced_with_void', radial=True),
    )
    return MODELS.build(dict(config[kind], **kwargs))


def channels_last(function, labels):
    """A function of channels-first logits out of one of our losses."""
    return lambda logits: function(logits.movedim(1, -1), labels, labels != IGNORED)


@pytest.mark.parametrize('classes', [18, 19])
@pytest.mark.parametrize(
    'kind, variant',
    [
        ('lovasz', ''),
        ('lovasz', '_absent'),
        ('lovasz', '_per_image'),
        ('sem_scal', ''),
        ('sem_scal', '_absent'),
        ('geo_scal', ''),
        ('ce_ssc', ''),
    ],
)
def test_golden_occupancy_losses(golden, value_and_grad, kind, classes, variant):
    case = golden.case('losses_occ')
    name = f'{kind}{classes}{variant}'
    labels = case.input(f'labels{classes}')
    if variant == '_absent':
        # Classes 3 and 7 become free.
        labels[(labels == 3) | (labels == 7)] = classes - 1
    labels[case.input('ignore')] = IGNORED
    kwargs = dict(per_sample=True) if variant == '_per_image' else {}
    value, grad = value_and_grad(
        channels_last(build(kind, classes, **kwargs), labels), case.input(f'logits{classes}')
    )
    golden.compare(case, f'{name}/value', value)
    golden.compare(case, f'{name}/grad', grad)


def test_golden_focal_loss_and_weights(golden, value_and_grad):
    case = golden.case('losses_occ')
    labels = case.input('focal_labels')
    labels[case.input('focal_ignore')] = IGNORED
    logits = case.input('focal_logits')
    if labels.dim() < logits.dim() - 1:
        labels = labels[..., None]
    value, grad = value_and_grad(channels_last(build('focal'), labels), logits)
    golden.compare(case, 'focal/value', value)
    golden.compare(case, 'focal/grad', grad)
    golden.compare(
        case, 'class_weights', class_balanced_weights(case.config['class_frequencies'], True)
    )
    shape = case.meta['outputs']['radial_weight']['shape']
    golden.compare(case, 'radial_weight', radial_weights(shape))


@pytest.mark.parametrize('kind', ['focal', 'sem_scal', 'geo_scal', 'lovasz'])
def test_golden_fbocc_losses(golden, value_and_grad, kind):
    case = golden.case('fbocc_losses')
    loss = channels_last(build(kind), case.input('gt'))
    logits = case.input('logits')
    value, grad = value_and_grad(loss, logits)
    golden.compare(case, f'loss_{kind}', value)
    golden.compare(case, f'grad_{kind}', grad)
    faults = torch.tensor([float('nan'), float('inf'), -float('inf')])
    index = case.input('nonfinite_index')
    logits[tuple(index.t())] = faults.repeat_interleave(len(index) // 3)
    golden.compare(case, f'nonfinite_{kind}', loss(zero_nonfinite(logits)))


def test_golden_fbocc_weights(golden):
    case = golden.case('fbocc_losses')
    golden.compare(case, 'class_weights', class_balanced_weights(void_first=True))
    shape = case.meta['outputs']['radial_weights']['shape']
    golden.compare(case, 'radial_weights', radial_weights(shape))


@pytest.mark.parametrize('masked', [False, True])
def test_golden_bevformer_loss(golden, value_and_grad, masked):
    case = golden.case('bevformer_loss')
    labels = case.input('gt')
    mask = case.input('mask_camera').bool() if masked else None
    value, grad = value_and_grad(
        lambda logits: masked_cross_entropy(logits, labels, mask), case.input('logits')
    )
    name = 'masked' if masked else 'unmasked'
    golden.compare(case, f'loss_{name}', value)
    golden.compare(case, f'grad_{name}', grad)


def check(golden, value_and_grad, name, function, tensor):
    case = golden.case('losses_distill')
    value, grad = value_and_grad(function, tensor)
    golden.compare(case, f'{name}/value', value)
    golden.compare(case, f'{name}/grad', grad)


@pytest.mark.parametrize('temperature', [1, 4, 10])
def test_golden_mmdet_knowledge_distillation(golden, value_and_grad, temperature):
    case = golden.case('losses_distill')
    soft = case.input('soft')
    check(
        golden,
        value_and_grad,
        f'kd_T{temperature}',
        lambda x: kd_kl_div(x, soft, temperature),
        case.input('pred'),
    )


@pytest.mark.parametrize(
    'name, loss_weight, avg_factor', [('kd_weighted', 2, None), ('kd_avg', 1, 37)]
)
def test_golden_mmdet_row_weights(golden, value_and_grad, name, loss_weight, avg_factor):
    # The case does not tell its temperature of 2 and loss weight.
    case = golden.case('losses_distill')
    soft, weight = case.input('soft'), case.input('row_weight')
    check(
        golden,
        value_and_grad,
        name,
        lambda x: loss_weight * kd_kl_div(x, soft, 2, weight, avg_factor),
        case.input('pred'),
    )


@pytest.mark.parametrize('packed', [False, True])
def test_golden_author_ray_loss(golden, value_and_grad, packed):
    case = golden.case('losses_distill')
    teacher = case.input('w_tea')
    rays, samples = teacher.shape
    offsets = torch.arange(rays + 1) * (samples - 1)

    def loss(student):
        if not packed:
            return 100 * kd_kl_div(student, teacher, 1)
        # The last sample plays the no-hit bin.
        return 100 * packed_double_softmax_kl(
            student[:, :-1].flatten(),
            teacher[:, :-1].flatten(),
            student[:, -1],
            teacher[:, -1],
            offsets,
            1,
        )

    check(golden, value_and_grad, 'kd_rays', loss, case.input('w_stu'))


@pytest.mark.parametrize(
    'name, function', [('sem_kl', elementwise_semantic_kl), ('sem_kl_batchmean', class_kl)]
)
def test_golden_rendered_semantic_kl(golden, value_and_grad, name, function):
    case = golden.case('losses_distill')
    teacher = case.input('sem_tea')
    check(golden, value_and_grad, name, lambda x: function(x, teacher), case.input('sem_stu'))


def test_golden_silog(golden, value_and_grad):
    case = golden.case('losses_distill')
    teacher = case.input('depth_gt').flatten()
    focus = case.config['variance_focus']
    check(
        golden,
        value_and_grad,
        'silog',
        lambda x: scale_invariant_log(x.flatten(), teacher, focus),
        case.input('depth_est'),
    )
