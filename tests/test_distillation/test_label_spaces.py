"""Data, model, teacher and checkpoint must speak of the same labels."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tests.test_distillation.toy_distillation import STUDENT, batch_of, distilled
from torch import nn

from radocc_plugin.benchmarks import OPENOCC_V2
from radocc_plugin.distillation.teacher_cache import TeacherCache
from radocc_plugin.engine.label_space import CheckLabelSpaceHook, check_checkpoint, check_model
from radocc_plugin.label_space import LabelSpace
from radocc_plugin.losses import DistillBatch
from radocc_plugin.occ3d import OCC3D_NUSCENES
from radocc_plugin.registry import MODELS

TOY = LabelSpace(
    'Toy', ('a', 'b', 'c', 'free'), [(i, i, i) for i in range(4)], (-4, -4, -1, 4, 4, 2.2), 0.8
)
OTHER = replace(TOY, label_space='Other', classes=('b', 'a', 'c', 'free'))
FIVE = replace(
    TOY,
    label_space='Five',
    classes=('a', 'b', 'c', 'd', 'free'),
    palette=[(i, i, i) for i in range(5)],
)
COARSE = replace(TOY, label_space='Coarse', voxel_size=1.6)
MOVED = replace(TOY, point_cloud_range=(0, -4, -1, 8, 4, 2.2), file_range=None)


def loss_of(space, trained_on=None, tmp_path=None, **options):
    checkpoint = None
    if trained_on is not None:
        checkpoint = str(tmp_path / 'teacher.pth')
        teacher = MODELS.build(dict(STUDENT, width=16))
        torch.save(
            dict(state_dict=teacher.state_dict(), meta=dict(dataset_meta=trained_on.metainfo())),
            checkpoint,
        )
    model = MODELS.build(distilled(teacher=checkpoint, **options))
    inputs, samples = batch_of()
    for sample in samples:
        sample.set_metainfo(dict(label_space=space))
    return model(inputs, samples, mode='loss')


@pytest.mark.parametrize(
    'space, message',
    [
        (FIVE, r'\(10, 10, 4, 4\), the label space Five .* \(10, 10, 4, 5\)'),
        (COARSE, r'the label space Coarse .* has \(5, 5, 2, 4\)'),
        (MOVED, r'renderer.point_cloud_range is \(-4, .* \(0.0, -4.0'),
    ],
)
def test_student_and_renderer_are_those_of_the_labels(space, message):
    with pytest.raises(ValueError, match=message):
        loss_of(space)


def test_labels_without_masks_count_where_there_are_labels():
    inputs, samples = batch_of()
    bare = replace(TOY, masks=())
    for sample in samples:
        sample.set_metainfo(dict(label_space=bare))
        del sample.gt_occ.mask_camera
    samples[0].gt_occ.semantics[0] = 255
    loss = SimpleNamespace(needs=('mask_camera', 'gt_occ'))
    batch = DistillBatch.from_data_samples(samples, [loss], torch.device('cpu'))
    assert torch.equal(batch.mask_camera, batch.gt_occ != 255)
    samples[0].set_metainfo(dict(label_space=TOY))  # which has that mask
    batch = DistillBatch.from_data_samples(samples, [loss], torch.device('cpu'))
    assert batch.mask_camera is None


def test_free_space_of_renderer_and_losses_is_that_of_the_labels():
    renderer = distilled()['renderer']
    with pytest.raises(ValueError, match='renderer.free_index is 0, .* at 3'):
        loss_of(TOY, renderer=dict(renderer, free_index=0))


@pytest.mark.parametrize(
    'trained_on, message',
    [
        (OTHER, 'trained on Other, the student learns Toy: classes of Other is'),
        (MOVED, 'point_cloud_range of Toy is .* that of Toy'),
    ],
)
def test_a_teacher_of_another_label_space_is_refused(trained_on, message, tmp_path):
    assert 'loss_rdc' in loss_of(TOY, TOY, tmp_path)
    with pytest.raises(ValueError, match=message):
        loss_of(TOY, trained_on, tmp_path)


def test_a_cache_knows_its_label_space(tmp_path):
    cache = TeacherCache(tmp_path)
    arguments = ('hash', None, TOY.point_cloud_range, None)
    cache.begin(*arguments, space=TOY)
    cache.begin(*arguments, space=TOY)
    assert LabelSpace.from_metainfo(cache.manifest['label_space']) == TOY
    with pytest.raises(ValueError, match='is of another setting'):
        cache.begin(*arguments, space=OTHER)
    cache.write('ab0', torch.zeros(10, 10, 4, 4))
    cache.write('0000sample', torch.zeros(10, 10, 4, 4))
    cache.write('0001sample', torch.zeros(10, 10, 4, 4))
    model = MODELS.build(distilled())
    model.teacher = MODELS.build(distilled() | dict(teacher=dict(cache=str(tmp_path)))).teacher
    inputs, samples = batch_of()
    for sample in samples:
        sample.set_metainfo(dict(label_space=OTHER))
    with pytest.raises(ValueError, match='trained on Toy, .* learns Other'):
        model(inputs, samples, mode='loss')


class Headed(nn.Module):
    occ_tap = dict(module='head')
    point_cloud_range = OCC3D_NUSCENES.point_cloud_range

    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Identity()
        self.head.num_classes = num_classes


def dataset_of(space):
    return SimpleNamespace(metainfo=space.metainfo())


def test_the_hook_compares_model_checkpoint_and_dataset():
    occ3d, openocc = map(dataset_of, (OCC3D_NUSCENES, OPENOCC_V2))
    near = dataset_of(OCC3D_NUSCENES.cropped((-20, -20, -1, 20, 20, 5.4)))
    check_model(Headed(18), occ3d)
    check_model(Headed(3), SimpleNamespace(metainfo={}))
    with pytest.raises(
        ValueError, match='head.num_classes of Headed is 18, the dataset is OpenOcc v2 with 17'
    ):
        check_model(Headed(18), openocc)
    with pytest.raises(ValueError, match='Headed predicts the range'):
        check_model(Headed(18), near)
    trained = dict(meta=dict(dataset_meta=OCC3D_NUSCENES.metainfo()))
    check_checkpoint(trained, near, 'x.pth')
    check_checkpoint({}, openocc, 'x.pth')
    runner = SimpleNamespace(
        _train_loop=dict(),
        model=Headed(18),
        test_dataloader=SimpleNamespace(dataset=openocc),
        _test_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=openocc)),
    )
    hook = CheckLabelSpaceHook()
    with pytest.raises(
        ValueError, match='trained on Occ3D-nuScenes with 18 classes .* is OpenOcc v2 with 17'
    ):
        hook.after_load_checkpoint(runner, trained)
    with pytest.raises(ValueError, match='is OpenOcc v2 with 17'):
        hook.before_test(runner)
