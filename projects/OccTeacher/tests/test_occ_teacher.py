"""Fusion and LiDAR-only teachers."""
import pytest
import torch

from projects.conftest import (build_model, load_config, make_batch,
                               train_steps)
from projects.OccTeacher.occ_teacher import ConvFuser3D
from radocc_plugin.registry import MODELS

STUDENT = 'projects/BEVDetOcc/configs/bevdet-occ_tiny_1xb1-3e_synthetic.py'
FOLDER = 'projects/OccTeacher/configs/'
FUSION = FOLDER + 'occ-teacher-fusion_tiny_1xb1-3e_synthetic.py'
LIDAR = FOLDER + 'occ-teacher-lidar_tiny_1xb1-3e_synthetic.py'
FULL = FOLDER + 'occ-teacher-fusion_r50-256x704_8xb4-24e_occ3d.py'


@pytest.mark.parametrize('path, losses', [
    (FUSION, {'loss_occ', 'loss_depth'}),
    (LIDAR, {'loss_occ'}),
])
def test_a_few_steps_learn_a_frame(path, losses):
    first, *_, last = train_steps(build_model(path))
    assert set(first) == losses
    assert last['loss_occ'] < 0.9 * first['loss_occ']


@pytest.mark.parametrize('path', [FUSION, LIDAR])
def test_modes_return_what_the_contract_says(path):
    model = build_model(path).eval()
    inputs, samples = make_batch()
    with torch.no_grad():
        logits = model(inputs, samples)
        prediction, = model(inputs, samples, mode='predict')
    assert logits.shape == (1, 200, 200, 16, 18)
    assert torch.equal(prediction.pred_occ.semantics.long(),
                       logits[0].argmax(-1))


@pytest.mark.parametrize('path, sees_images', [(FUSION, True),
                                               (LIDAR, False)])
def test_what_the_teachers_look_at(path, sees_images):
    model = build_model(path).eval()
    inputs, samples = make_batch()
    with torch.no_grad():
        logits = model(inputs, samples)
        other_images = model(dict(inputs, imgs=inputs['imgs'] + 1), samples)
        moved = [inputs['points'][0] + torch.tensor([1., 0, 0, 0, 0])]
        other_points = model(dict(inputs, points=moved), samples)
    assert torch.equal(logits, other_images) != sees_images
    assert not torch.equal(logits, other_points)


def test_images_are_lifted_at_the_depth_of_the_points():
    model = build_model(FUSION).eval()
    inputs, samples = make_batch()
    known = model.known_depth(inputs['points'], inputs['imgs'], samples)
    hit = known.any(1, keepdim=True)
    assert hit.any() and not hit.all()
    with torch.no_grad():
        lifted, _ = model.lift_images(inputs['imgs'], samples, known)
        predicted, _ = model.lift_images(inputs['imgs'], samples)
    assert not torch.equal(lifted, predicted)
    plain = build_model(FUSION, depth_from_lidar=False)
    assert plain.known_depth(inputs['points'], inputs['imgs'], samples) is None


def test_a_student_checkpoint_initialises_the_camera_part():
    student = build_model(STUDENT, seed=1).state_dict()
    teacher = build_model(FUSION, seed=2)
    keys = teacher.load_state_dict(student, strict=False)
    assert not keys.unexpected_keys
    assert all(key.startswith('pts_') for key in keys.missing_keys)


def test_teachers_share_the_students_head():
    head = load_config(STUDENT).model.occ_head
    for path in (FUSION, LIDAR):
        assert load_config(path).model.occ_head == head


@pytest.mark.parametrize('path', [FUSION, LIDAR, FULL])
def test_teachers_are_tested_with_points(path):
    config = load_config(path)
    for loader in (config.val_dataloader, config.test_dataloader):
        transforms = [t.type for t in loader.dataset.pipeline]
        assert 'radocc_plugin.LoadLidarPoints' in transforms
        assert 'radocc_plugin.AugmentBEV' not in transforms


@pytest.mark.parametrize('use_se', [False, True])
def test_fusion_takes_volumes_of_one_grid(use_se):
    fuser = ConvFuser3D(4, 6, 8, use_se=use_se)
    camera, lidar = torch.randn(1, 4, 2, 5, 6), torch.randn(1, 6, 2, 5, 6)
    assert fuser(camera, lidar).shape == (1, 8, 2, 5, 6)
    with pytest.raises(ValueError, match='one grid'):
        fuser(camera, lidar[..., :3])


def test_missing_points_and_half_a_camera_branch_are_named():
    model = build_model(LIDAR)
    inputs, samples = make_batch()
    with pytest.raises(ValueError, match='LoadLidarPoints'):
        model(dict(imgs=inputs['imgs']), samples)
    config = load_config(FUSION).model
    config.pts_fusion = None
    with pytest.raises(ValueError, match="'pts_fusion'"):
        MODELS.build(config)


def test_the_full_size_teacher_builds_on_the_full_grid():
    model = build_model(FULL)
    nx, ny, nz = model.pts_voxel_encoder.grid.shape
    assert (nx // 2, ny // 2, nz // 2) == model.img_view_transformer.grid.shape
    student = build_model(
        'projects/BEVDetOcc/configs/'
        'bevdet-occ_r50-256x704_8xb4-24e_occ3d.py')
    missing = student.state_dict().keys() - model.state_dict().keys()
    assert not missing
