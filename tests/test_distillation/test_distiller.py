"""A toy student that nobody adapted, under the real Runner."""
import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner, load_checkpoint
from torch import nn
from torch.utils.data import Dataset

from radocc_plugin.distillation import OccTap, RadOccDistiller
from radocc_plugin.geometry import Cameras
from radocc_plugin.losses import masked_cross_entropy
from radocc_plugin.registry import MODELS
from radocc_plugin.structures import OccData, OccDataSample

SHAPE, CLASSES = (10, 10, 4), 4


@MODELS.register_module(force=True)
class ToyOccStudent(BaseModel):
    """Image mean -> volume; with batch norm and dropout, as real ones."""

    def __init__(self, width=8, data_preprocessor=None):
        super().__init__(data_preprocessor=data_preprocessor)
        self.encode = nn.Sequential(
            nn.Linear(3, width), nn.BatchNorm1d(width), nn.ReLU(),
            nn.Dropout(0.2))
        self.head = nn.Linear(width, CLASSES * int(np.prod(SHAPE)))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        images = inputs['imgs']
        if isinstance(images, list):
            images = torch.stack(images)
        volume = self.head(self.encode(images.mean((1, 3, 4))))
        logits = volume.view(-1, CLASSES, *SHAPE).permute(0, 2, 3, 4, 1)
        if mode == 'tensor':
            return logits
        if mode == 'predict':
            return data_samples
        labels = torch.stack([s.gt_occ.semantics for s in data_samples])
        return dict(loss_occ=masked_cross_entropy(logits, labels))


class ToyData(Dataset):

    metainfo = {}

    def __len__(self):
        return 12

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        sample = OccDataSample(
            metainfo=dict(
                cam2img=np.array([[[20., 0, 16], [0, 20, 9], [0, 0, 1]]]),
                cam2ego=np.array([[[0., 0, 1, 0], [-1, 0, 0, 0.05],
                                   [0, -1, 0, 0.7], [0, 0, 0, 1]]]),
                ori_shape=(18, 32)))
        sample.gt_occ = OccData(
            semantics=torch.randint(0, 4, SHAPE, generator=generator))
        sample.segments = torch.randint(
            0, 4, (1, 6, 10), generator=generator, dtype=torch.int32)
        return dict(
            inputs=dict(imgs=torch.rand(1, 3, 4, 4, generator=generator)),
            data_samples=sample)


STUDENT = dict(type='radocc_plugin.ToyOccStudent')
TAP = dict(module='head', layout='b (c x y z)', axes=dict(c=4, x=10, y=10))


def distilled(teacher=None, rdc=1.0, rsc=1.0, **kwargs):
    return dict(
        type='radocc_plugin.RadOccDistiller',
        student=STUDENT,
        student_tap=TAP,
        teacher=dict(
            model=dict(type='radocc_plugin.ToyOccStudent', width=16),
            checkpoint=teacher,
            tap=TAP),
        renderer=dict(
            type='radocc_plugin.VolumeRenderer',
            point_cloud_range=(-4, -4, -1, 4, 4, 2.2),
            render_size=(6, 10),
            max_rays=50),
        losses=dict(
            depth=dict(
                type='radocc_plugin.RenderedDepthConsistency',
                loss_weight=rdc),
            semantics=dict(
                type='radocc_plugin.RenderedSemanticConsistency',
                loss_weight=rsc)),
        **kwargs)


@pytest.fixture
def teacher(tmp_path):
    torch.manual_seed(7)
    model = ToyOccStudent(width=16)
    path = tmp_path / 'teacher.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return str(path)


def train(work_dir, model, epochs=2, **kwargs):
    runner = Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=ToyData(),
            batch_size=4,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='pseudo_collate')),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-2)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        randomness=dict(seed=3),
        experiment_name=f'toy_{work_dir.name}',
        log_level='ERROR',
        **kwargs)
    runner.train()
    return runner.model


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def test_zero_weights_train_like_the_plain_student(tmp_path, teacher):
    plain = train(tmp_path / 'plain', STUDENT)
    wrapped = train(tmp_path / 'wrapped', distilled(teacher, 0.0, 0.0))
    assert_same_weights(plain.state_dict(), wrapped.state_dict())


def test_the_losses_change_the_student(tmp_path, teacher):
    plain = train(tmp_path / 'plain', STUDENT)
    wrapped = train(tmp_path / 'wrapped', distilled(teacher))
    different = [
        not torch.equal(value,
                        wrapped.state_dict()[key])
        for key, value in plain.state_dict().items()
    ]
    assert any(different)


def test_every_checkpoint_loads_into_the_plain_student(tmp_path, teacher):
    wrapped = train(tmp_path, distilled(teacher))
    for epoch in (1, 2):
        student = ToyOccStudent()
        load_checkpoint(
            student, str(tmp_path / f'epoch_{epoch}.pth'), strict=True)
    assert_same_weights(student.state_dict(), wrapped.state_dict())


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
        geometry = model.renderer.trace(cameras, SHAPE, model._generator())
        return geometry.rays.pixel.tolist()

    first = [draw(iteration) for iteration in range(3)]
    assert [draw(2), draw(0)] == [first[2], first[0]]
    assert first[0] != first[1]


def test_resumes_from_its_own_checkpoint(tmp_path, teacher):
    train(tmp_path, distilled(teacher), epochs=1)
    resumed = train(tmp_path, distilled(teacher), epochs=2, resume=True)
    # Three steps an epoch, counted by batch norm.
    assert int(resumed.state_dict()['encode.1.num_batches_tracked']) == 6


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
    assert all(name.startswith('student.') for name in names)
    assert not inner.training
    assert all(p.grad is None for p in inner.parameters())
    assert set(losses) == {
        'loss_occ', 'loss_rdc', 'loss_rsc_affinity', 'loss_rsc_kl'
    }


def test_ema_shares_the_teacher(tmp_path, teacher):
    runner_model = train(
        tmp_path,
        distilled(teacher),
        custom_hooks=[dict(type='EMAHook', momentum=0.01)])
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


def test_teacher_checkpoint_that_does_not_fit_is_named(tmp_path):
    path = tmp_path / 'other.pth'
    torch.save(dict(state_dict={'head.weight': torch.zeros(2)}), path)
    model = MODELS.build(distilled(str(path)))
    with pytest.raises(ValueError, match='other.pth.*missing'):
        model.teacher.model(torch.device('cpu'))


def test_volumes_that_disagree_are_named(teacher):
    model = MODELS.build(distilled(teacher))
    a, b = torch.zeros(1, *SHAPE, 4), torch.zeros(1, *SHAPE, 3)
    with pytest.raises(ValueError, match='student.*teacher'):
        model.consistency(a, b, [ToyData()[0]['data_samples']])


def test_missing_segments_are_named(teacher):
    model = MODELS.build(distilled(teacher))
    sample = ToyData()[0]['data_samples']
    del sample.segments
    logits = torch.randn(1, *SHAPE, 4)
    with pytest.raises(ValueError, match='segments'):
        model.consistency(logits, logits, [sample])


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
    assert tap.logits(outputs).shape == (2, *SHAPE, 4)
    assert not model.head._forward_hooks
    tensor = weakref.ref(outputs[0])
    del outputs
    gc.collect()
    assert tensor() is None


@pytest.mark.parametrize('kwargs, message', [
    (dict(layout='b x y z'), 'tap.layout'),
    (dict(layout='b c x y z'), 'tap.layout'),
])
def test_layouts_that_do_not_fit_are_named(kwargs, message):
    model = ToyOccStudent().eval()
    with pytest.raises(ValueError, match=message):
        tap = OccTap('head', **kwargs)
        with tap.record(model) as outputs:
            model(dict(imgs=torch.rand(2, 1, 3, 4, 4)))
        tap.logits(outputs)


def test_class_order_is_applied():
    tap = OccTap('head', class_order=[2, 0, 1])
    logits = tap.logits([torch.tensor([10., 11, 12]).expand(1, 1, 1, 1, 3)])
    assert logits.flatten().tolist() == [12, 10, 11]


def test_distiller_is_built_by_its_registered_name(teacher):
    assert isinstance(MODELS.build(distilled(teacher)), RadOccDistiller)
