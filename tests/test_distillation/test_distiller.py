"""A toy student that nobody adapted, under the real Runner."""

import copy
import gc
import weakref

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.runner import load_checkpoint
from torch import nn
from tests.test_distillation.toy_distillation import (
    FEATURES,
    SHAPE,
    STUDENT,
    TAP,
    ToyData,
    ToyOccStudent,
    assert_same_weights,
    batch_of,
    distilled,
    train,
)

from radocc_plugin.distillation import FrozenTeacher, OccTap, RadOccDistiller, distiller
from radocc_plugin.distillation.pull import limit_pull
from radocc_plugin.geometry import Cameras
from radocc_plugin.losses import DistillLoss, ModelOutputs
from radocc_plugin.registry import MODELS
from radocc_plugin.rendering import VolumeRenderer


@MODELS.register_module(force=True)
class TimesZero(DistillLoss):
    """Computes, draws and adapts as a loss does; its value is 0."""

    def __init__(self, compares):
        super().__init__()
        self.compares, self.feature = compares, 'hidden'
        self.adapter = nn.Linear(1, 1)

    def forward(self, student, teacher, batch):
        if self.compares == 'render':
            student = student.depth[:, None]
        torch.rand(3, generator=batch.generator)
        return dict(loss_zero=0.0 * self.adapter(student[..., :1]).sum())


# The norm of clipping is a sum over the parameters that have a gradient.
OPTIM = dict(clip_grad=dict(max_norm=0.05), accumulative_counts=2)
UNCLIPPED = dict(accumulative_counts=2)


def student_of(model):
    return {k: v for k, v in model.state_dict().items() if not k.startswith('distill.')}


@pytest.mark.parametrize(
    'losses, optim',
    [
        # weights of 0: teacher, renderer and adapter rest
        (distilled(rdc=0.0, rsc=0.0, feature=0.0)['losses'], OPTIM),
        # everything runs, and the sum is 0
        (dict(zero=dict(type='radocc_plugin.TimesZero', compares='render')), UNCLIPPED),
        (dict(zero=dict(type='radocc_plugin.TimesZero', compares='features')), UNCLIPPED),
    ],
    ids=['resting', 'render', 'features'],
)
def test_zero_weights_train_like_the_plain_student(tmp_path, teacher, losses, optim):
    """Parameters, buffers and the state of the random numbers."""
    plain = train(tmp_path / 'plain', STUDENT, optim=optim)
    rng_state = torch.get_rng_state()
    config = distilled(teacher, losses=losses, **FEATURES)
    wrapped = train(tmp_path / 'wrapped', config, optim=optim)
    assert_same_weights(plain.state_dict(), student_of(wrapped))
    assert torch.equal(rng_state, torch.get_rng_state())


def test_the_losses_change_the_student(tmp_path, teacher):
    plain = train(tmp_path / 'plain', STUDENT)
    wrapped = train(tmp_path / 'wrapped', distilled(teacher))
    different = [
        not torch.equal(value, wrapped.state_dict()[key])
        for key, value in plain.state_dict().items()
    ]
    assert any(different)


def test_every_checkpoint_loads_into_the_plain_student(tmp_path, teacher):
    wrapped = train(tmp_path, distilled(teacher))
    for epoch in (1, 2):
        student = ToyOccStudent()
        load_checkpoint(student, str(tmp_path / f'epoch_{epoch}.pth'), strict=True)
    assert_same_weights(student.state_dict(), wrapped.state_dict())


@pytest.mark.parametrize('feature', [None, 1.0])
def test_resume_continues_exactly(tmp_path, teacher, feature):
    """Rays, schedules, adapters and optimizer states go on."""
    config = distilled(teacher, feature=feature, schedules=dict(depth=dict(ramp=5, shape='cosine')))
    # The toy's dropout draws from the global generator, which a resumed run
    # seeds anew, as it does for the plain student.
    config['student'] = dict(STUDENT, plain=True)
    unbroken = train(tmp_path / 'unbroken', config)
    train(tmp_path / 'resumed', config, epochs=1)
    resumed = train(tmp_path / 'resumed', config, resume=True)
    assert_same_weights(unbroken.state_dict(), resumed.state_dict())


def test_a_baseline_checkpoint_loads_into_the_wrapper(tmp_path, teacher):
    baseline = ToyOccStudent()
    torch.save(baseline.state_dict(), tmp_path / 'baseline.pth')
    model = MODELS.build(distilled(teacher))
    load_checkpoint(model, str(tmp_path / 'baseline.pth'), strict=True)
    assert_same_weights(baseline.state_dict(), model.student.state_dict())


def test_a_resumed_run_draws_the_rays_of_an_unbroken_one(teacher):
    model = MODELS.build(distilled(teacher))
    cameras = Cameras.from_data_samples([ToyData()[0]['data_samples']])

    def draw(iteration):
        MessageHub.get_current_instance().update_info('iter', iteration)
        geometry = model.renderer.trace(cameras, SHAPE, model._generator('rays'))
        return geometry.rays.pixel.tolist()

    first = [draw(iteration) for iteration in range(3)]
    assert [draw(2), draw(0)] == [first[2], first[0]]
    assert first[0] != first[1]


def test_seeds_ranks_and_purposes_draw_streams_of_their_own(teacher, monkeypatch):

    def draw(seed=0, rank=0, iteration=0, purpose='rays'):
        model.seed = seed
        monkeypatch.setattr(distiller, 'get_rank', lambda: rank)
        MessageHub.get_current_instance().update_info('iter', iteration)
        return model._generator(purpose).initial_seed()

    model = MODELS.build(distilled(teacher))
    drawn = [
        draw(seed, rank, iteration, purpose)
        for seed in range(4)
        for rank in range(4)
        for iteration in range(4)
        for purpose in ('rays', 'losses')
    ]
    assert len(set(drawn)) == len(drawn)
    assert draw(3, 2, 1) == draw(3, 2, 1)


def test_teacher_is_invisible_to_training(teacher):
    model = MODELS.build(distilled(teacher))
    names = [name for name, _ in model.named_parameters()]
    batch = [ToyData()[i] for i in range(2)]
    inputs = dict(imgs=[b['inputs']['imgs'] for b in batch])
    model.train()
    losses = model(inputs, [b['data_samples'] for b in batch], mode='loss')
    sum(losses.values()).backward()
    inner = model.teacher.model(torch.device('cpu'))
    assert names == [name for name, _ in model.named_parameters()]
    assert names == [name for name, _ in model.student.named_parameters()]
    assert not inner.training
    assert all(p.grad is None for p in inner.parameters())
    assert set(losses) == {'loss_occ', 'loss_rdc', 'loss_rsc_affinity', 'loss_rsc_kl'}


def test_ema_shares_the_teacher(tmp_path, teacher):
    runner_model = train(
        tmp_path, distilled(teacher), custom_hooks=[dict(type='EMAHook', momentum=0.01)]
    )
    clone = copy.deepcopy(runner_model)
    assert clone.teacher is runner_model.teacher
    state = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    student = ToyOccStudent()
    student.load_state_dict(state['state_dict'])
    averaged = state['ema_state_dict']
    assert {f'module.{key}' for key in student.state_dict()} < set(averaged)


def test_other_modes_never_touch_the_teacher():
    model = MODELS.build(distilled('no/such/file.pth')).eval()
    inputs = dict(imgs=ToyData()[0]['inputs']['imgs'][None])
    logits = model(inputs, mode='tensor')
    assert torch.equal(logits, model.student(inputs, mode='tensor'))
    assert model.teacher._model is None


def test_missing_teacher_checkpoint_is_named():
    model = MODELS.build(distilled('no/such/file.pth'))
    with pytest.raises(FileNotFoundError, match='no/such/file.pth'):
        model.teacher.model(torch.device('cpu'))


@pytest.mark.parametrize(
    'change, error',
    [
        (lambda state: state.pop('head.weight'), r'(?s)other.pth.*Missing key.*"head.weight"'),
        (
            lambda state: state.update(extra=torch.zeros(2)),
            r'(?s)other.pth.*Unexpected key.*"extra"',
        ),
        (
            lambda state: state.update({'head.weight': torch.zeros(2)}),
            '(?s)other.pth.*head.weight.*shape',
        ),
    ],
    ids=['missing', 'unexpected', 'shape'],
)
def test_teacher_checkpoint_that_does_not_fit_is_named(tmp_path, teacher, change, error):
    path = tmp_path / 'other.pth'
    model = MODELS.build(distilled(str(path)))
    state = torch.load(teacher)['state_dict']
    change(state)
    torch.save(dict(state_dict=state), path)
    with pytest.raises(ValueError, match=error):
        model.teacher.model(torch.device('cpu'))


def test_a_teachers_own_key_conversion_takes_part(tmp_path, teacher):
    state = torch.load(teacher)['state_dict']
    path = tmp_path / 'renamed.pth'
    torch.save({f'old.{key}': value for key, value in state.items()}, path)
    settings = distilled(str(path))['teacher']

    @MODELS.register_module(force=True)
    class ConvertingTeacher(ToyOccStudent):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self._register_load_state_dict_pre_hook(self._convert)

        def _convert(self, state_dict, prefix, *args):
            for key in list(state_dict):
                state_dict[key.replace('old.', '', 1)] = state_dict.pop(key)

    network = dict(settings['model'], type='radocc_plugin.ConvertingTeacher')
    loaded = FrozenTeacher(network, str(path)).model(torch.device('cpu'))
    assert_same_weights(loaded.state_dict(), state)


def test_volumes_that_disagree_are_named(teacher):
    model = MODELS.build(distilled(teacher))
    a, b = torch.zeros(1, *SHAPE, 4), torch.zeros(1, *SHAPE, 3)
    with pytest.raises(ValueError, match='student.*teacher'):
        model.consistency(ModelOutputs(a), ModelOutputs(b), [ToyData()[0]['data_samples']])


def test_missing_segments_are_named(teacher):
    model = MODELS.build(distilled(teacher))
    sample = ToyData()[0]['data_samples']
    del sample.segments
    logits = torch.randn(1, *SHAPE, 4)
    with pytest.raises(ValueError, match='segments'):
        model.consistency(ModelOutputs(logits), ModelOutputs(logits), [sample])


def test_student_without_a_tap_is_told_what_to_set(teacher):
    config = distilled(teacher)
    config.pop('student_tap')
    with pytest.raises(ValueError, match='student_tap'):
        MODELS.build(config)


def test_unknown_tap_suggests_close_paths():
    model = ToyOccStudent()
    with pytest.raises(ValueError, match='encode'):
        with OccTap('encoder').record(model):
            pass


def test_tap_is_released_after_the_step():
    model, tap = ToyOccStudent().eval(), OccTap(**TAP)
    with tap.record(model) as outputs:
        model(dict(imgs=torch.rand(2, 1, 3, 4, 4)))
    assert tap.read(outputs).shape == (2, *SHAPE, 4)
    assert not model.head._forward_hooks
    tensor = weakref.ref(outputs[0])
    del outputs
    gc.collect()
    assert tensor() is None


@pytest.mark.parametrize(
    'kwargs, message',
    [(dict(layout='b x y z'), 'tap.layout'), (dict(layout='b c x y z'), 'tap.layout')],
)
def test_layouts_that_do_not_fit_are_named(kwargs, message):
    model = ToyOccStudent().eval()
    with pytest.raises(ValueError, match=message):
        tap = OccTap('head', **kwargs)
        with tap.record(model) as outputs:
            model(dict(imgs=torch.rand(2, 1, 3, 4, 4)))
        tap.read(outputs)


def test_class_order_is_applied():
    tap = OccTap('head', class_order=[2, 0, 1])
    logits = tap.read([torch.tensor([10.0, 11, 12]).expand(1, 1, 1, 1, 3)])
    assert logits.flatten().tolist() == [12, 10, 11]


def test_distiller_is_built_by_its_registered_name(teacher):
    assert isinstance(MODELS.build(distilled(teacher)), RadOccDistiller)


@MODELS.register_module(force=True)
class LearnedRenderer(VolumeRenderer):
    """A renderer of the user's with a parameter and a buffer of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.sharpness = nn.Parameter(torch.ones(()))
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))

    def render_pair(self, teacher, student, geometry):
        self.steps += 1
        return super().render_pair(teacher, (student[0] * self.sharpness, student[1]), geometry)


def test_a_renderer_s_own_weights_are_saved_and_loaded(tmp_path, teacher):
    config = distilled(teacher)
    config['renderer'] = dict(config['renderer'], type='radocc_plugin.LearnedRenderer')
    trained = train(tmp_path, config)
    state = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)['state_dict']
    assert state['distill_renderer.sharpness'] != 1
    assert state['distill_renderer.steps'] == 6
    again = MODELS.build(config)
    again.load_state_dict(state)
    assert torch.equal(again.renderer.sharpness, trained.renderer.sharpness)
    ToyOccStudent().load_state_dict({k: v for k, v in state.items() if not k.startswith('distill')})


def test_a_distilled_student_with_adapters_can_teach(tmp_path, teacher):
    train(tmp_path, distilled(teacher, feature=1.0))
    state = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)['state_dict']
    assert any(key.startswith('distill.') for key in state)
    next_teacher = FrozenTeacher(STUDENT, str(tmp_path / 'epoch_2.pth')).model(torch.device('cpu'))
    assert_same_weights(
        dict(next_teacher.state_dict()),
        {k: v for k, v in state.items() if not k.startswith('distill.')},
    )


def test_parameters_have_the_names_of_checkpoints(teacher):
    """So layer-wise learning rates that match names are the student's."""
    model = MODELS.build(distilled(teacher, feature=1.0))
    names = [name for name, _ in model.named_parameters()]
    assert set(names) <= set(model.state_dict())
    assert [n for n in names if not n.startswith('distill.')] == [
        n for n, _ in model.student.named_parameters()
    ]
    assert len(names) == len(list(model.parameters()))
    assert dict(model.named_parameters('model'))['model.head.weight'] is model.student.head.weight


def test_a_missing_teacher_stops_the_training_before_its_first_step(tmp_path):
    with pytest.raises(FileNotFoundError, match='no/such/file.pth'):
        train(tmp_path, distilled('no/such/file.pth'))
    assert not list(tmp_path.rglob('scalars.json'))
    # one that no loss asks for is never read
    train(tmp_path / 'resting', distilled('no/such/file.pth', 0.0, 0.0))


@pytest.mark.parametrize(
    'name, value',
    [('mean', (103.53, 116.28, 123.675)), ('channel_order', 'bgr'), ('pad_size_divisor', 32)],
)
def test_a_teacher_that_wants_other_images_is_refused(teacher, name, value):
    preprocessor = dict(type='radocc_plugin.OccDataPreprocessor')
    config = distilled(teacher)
    for part, settings in ((config, {}), (config['teacher'], {name: value})):
        key = 'student' if part is config else 'model'
        part[key] = dict(part[key], data_preprocessor=dict(preprocessor, **settings))
    inputs, samples = batch_of()
    model = MODELS.build(config)
    model.init_weights()
    with pytest.raises(ValueError, match=f'data_preprocessor.{name} of the'):
        model(inputs, samples, mode='loss')
    config['teacher']['model']['data_preprocessor'] = preprocessor
    model = MODELS.build(config)
    model.init_weights()
    model(inputs, samples, mode='loss')


@pytest.mark.parametrize('light', ['entered', 'ended', 'share', 'shuffled'])
def test_every_light_of_the_voxel_form_is_brought_to_it(light):
    voxel = dict(type='radocc_plugin.RenderedVoxelConsistency', light=light, min_light=0.01)
    torch.manual_seed(0)
    model = MODELS.build(distilled(losses=dict(voxel=voxel)))
    assert model(*batch_of(), mode='loss')['loss_voxel'] > 0


@pytest.mark.parametrize('max_pull', [0.01, 1e6])
def test_our_pull_at_the_logits_is_at_most_a_share_of_the_students_own(max_pull):
    def gradients(**options):
        torch.manual_seed(0)
        model = MODELS.build(distilled(rdc=100.0, **options))
        inputs, samples = batch_of()
        with model.student_tap.record(model.student) as outputs:
            torch.manual_seed(0)
            losses = model(inputs, samples, mode='loss')
        own, ours = losses.pop('loss_occ'), [v for k, v in losses.items() if 'loss' in k]
        slopes = [
            torch.autograd.grad(value, outputs[0], retain_graph=True)[0]
            for value in (own, torch.stack(ours).sum())
        ]
        return slopes, losses.get('distill_scale')

    (own, free), scale = gradients()
    assert scale is None and free.norm() > own.norm()
    (_, limited), scale = gradients(max_pull=max_pull)
    torch.testing.assert_close(limited, scale * free)
    if max_pull < 1:
        torch.testing.assert_close(limited.norm(), max_pull * own.norm())
    else:
        assert scale == 1


def test_a_batch_without_labels_has_no_limit():
    tapped = torch.ones(3, requires_grad=True)
    ours, own = dict(loss_a=(5 * tapped).sum()), dict(loss_depth=torch.ones(2, requires_grad=True))
    found = limit_pull(ours, own, tapped, 0.1)
    assert found['distill_scale'] == 1 and found['loss_a'] == 15


def test_a_pull_of_nothing_is_an_error():
    with pytest.raises(ValueError, match='max_pull takes a positive number or None, got 0'):
        MODELS.build(distilled(max_pull=0))
