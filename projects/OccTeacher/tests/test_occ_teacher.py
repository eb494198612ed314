"""Fusion and LiDAR-only teachers."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from radocc_plugin.models.occ_teacher import ConvFuser3D, DepthFuser
from radocc_plugin.registry import MODELS
from tests.support.models import ROOT, build_model, load_config, make_batch, train_steps

STUDENT = 'projects/BEVDetOcc/configs/bevdet-occ_tiny_1xb1-3e_synthetic.py'
FULL_STUDENT = 'projects/BEVDetOcc/configs/bevdet-occ_r50-256x704_8xb4-24e_occ3d.py'
FOLDER = 'projects/OccTeacher/configs/'
FUSION = FOLDER + 'occ-teacher-fusion_tiny_1xb1-3e_synthetic.py'
LIDAR = FOLDER + 'occ-teacher-lidar_tiny_1xb1-3e_synthetic.py'
FULL = FOLDER + 'occ-teacher-fusion_r50-256x704_8xb4-24e_occ3d.py'
FULL_01 = FOLDER + 'occ-teacher-fusion_voxel01-r50-256x704_8xb4-24e_occ3d.py'
FULL_LIDAR = FOLDER + 'occ-teacher-lidar_voxel005_8xb4-24e_occ3d.py'
SPARSE = dict(
    pts_voxel_encoder=dict(
        type='radocc_plugin.SparseVoxelMean',
        point_cloud_range=(-40, -40, -1, 40, 40, 5.4),
        voxel_size=0.2,
    ),
    pts_middle_encoder=dict(
        type='radocc_plugin.OccSparseEncoder',
        in_channels=6,
        out_channels=16,
        base_channels=8,
        encoder_channels=((8, 8), (8, 16), (16,)),
        backend='torch',
    ),
)


def build_sparse(path, **kwargs):
    """A tiny teacher with the sparse encoder of the full-size ones."""
    parts = {key: dict(_delete_=True, **part) for key, part in SPARSE.items()}
    return build_model(path, **parts, **kwargs)


@pytest.mark.parametrize('build', [build_model, build_sparse])
@pytest.mark.parametrize(
    'path, losses', [(FUSION, {'loss_occ', 'loss_depth'}), (LIDAR, {'loss_occ'})]
)
def test_a_few_steps_learn_a_frame(build, path, losses):
    first, *_, last = train_steps(build(path))
    assert set(first) == losses
    assert last['loss_occ'] < 0.9 * first['loss_occ']


@pytest.mark.parametrize('path', [FUSION, LIDAR])
def test_modes_return_what_the_contract_says(path):
    model = build_model(path).eval()
    inputs, samples = make_batch()
    with torch.no_grad():
        logits = model(inputs, samples)
        (prediction,) = model(inputs, samples, mode='predict')
    assert logits.shape == (1, 200, 200, 16, 18)
    assert torch.equal(prediction.pred_occ.semantics.long(), logits[0].argmax(-1))


@pytest.mark.parametrize('path, sees_images', [(FUSION, True), (LIDAR, False)])
def test_what_the_teachers_look_at(path, sees_images):
    model = build_model(path).eval()
    inputs, samples = make_batch()
    with torch.no_grad():
        logits = model(inputs, samples)
        other_images = model(dict(inputs, imgs=inputs['imgs'] + 1), samples)
        moved = [inputs['points'][0] + torch.tensor([1.0, 0, 0, 0, 0])]
        other_points = model(dict(inputs, points=moved), samples)
    assert torch.equal(logits, other_images) != sees_images
    assert not torch.equal(logits, other_points)


@pytest.mark.parametrize('path', [FUSION, LIDAR])
def test_teachers_tell_past_sweeps_from_the_keyframe(path):
    model = build_model(path).eval()
    inputs, samples = make_batch()
    lagged = inputs['points'][0].clone()
    lagged[::2, 4] = 0.45  # nine sweeps back
    with torch.no_grad():
        logits = model(inputs, samples)
        other = model(dict(inputs, points=[lagged]), samples)
    assert not torch.equal(logits, other)


def test_images_are_lifted_at_the_depth_of_the_points():
    model = build_model(FUSION).eval()
    inputs, samples = make_batch()
    known = model.known_depth(samples)
    hit = known.any(1, keepdim=True)
    assert hit.any() and not hit.all()
    with torch.no_grad():
        lifted, predicted = model.lift_images(inputs['imgs'], samples)
        model.depth_from_lidar = False
        plain, same = model.lift_images(inputs['imgs'], samples)
    # The predicted depth is what the loss teaches; the lift replaces it.
    assert torch.equal(predicted, same)
    assert not torch.equal(lifted, plain)
    del samples[0].gt_depth
    model.lift_images(inputs['imgs'], samples)
    model.depth_from_lidar = True
    with pytest.raises(ValueError, match='PointsToDepthMaps'):
        model.lift_images(inputs['imgs'], samples)


DEPTH_FUSION = dict(type='radocc_plugin.DepthFuser', num_bins=44, channels=64)


def test_the_depth_net_reads_the_depth_of_the_points():
    model = build_model(FUSION, depth_from_lidar=False).eval()
    fused = build_model(FUSION, depth_from_lidar=False, pts_depth_fusion=DEPTH_FUSION).eval()
    fused.load_state_dict(model.state_dict(), strict=False)
    inputs, samples = make_batch()
    with torch.no_grad():
        plain = model.lift_images(inputs['imgs'], samples)[1]
        start = fused.lift_images(inputs['imgs'], samples)[1]
        torch.nn.init.normal_(fused.pts_depth_fusion.convs[-1].weight)
        moved = fused.lift_images(inputs['imgs'], samples)[1]
        samples[0].gt_depth[:] = 0
        other = fused.lift_images(inputs['imgs'], samples)[1]
    assert torch.equal(plain, start)  # zero at first
    assert not torch.equal(start, moved)
    assert not torch.equal(moved, other)


def test_depth_fusion_learns_and_drops_depth_in_training_only():
    torch.manual_seed(0)
    fuser = DepthFuser(8, 4, dropout=0.5)
    torch.nn.init.normal_(fuser.convs[-1].weight)
    depth = torch.nn.functional.one_hot(torch.randint(8, (64, 2, 2))).permute(0, 3, 1, 2).float()
    features = torch.zeros(64, 4, 2, 2)
    nothing = fuser.eval()(features[:1], 0 * depth[:1])
    out = fuser.train()(features, depth)
    dropped = out.isclose(nothing, atol=1e-6).flatten(1).all(1)
    assert 16 < dropped.sum() < 48
    assert torch.equal(fuser.eval()(features, depth), fuser.eval()(features, depth))
    out.sum().backward()
    assert all(p.grad.any() for p in fuser.parameters())
    with pytest.raises(ValueError, match='dropout takes'):
        DepthFuser(8, 4, dropout=1.0)


def student_file(path, **changes):
    student = build_model(STUDENT, seed=1, **changes)
    torch.save(dict(state_dict=student.state_dict()), path)
    return student.state_dict()


def test_a_student_checkpoint_initialises_the_camera_part(tmp_path):
    path = tmp_path / 'student.pth'
    student = student_file(path)
    teacher = build_model(FUSION, seed=2, camera_checkpoint=str(path))
    lidar = teacher.pts_fusion.conv.conv.weight.clone()
    teacher.init_weights()
    state = teacher.state_dict()
    for key, value in student.items():
        assert torch.equal(state[key], value), key
    assert all(key.startswith('pts_') for key in state.keys() - student.keys())
    assert lidar.shape == teacher.pts_fusion.conv.conv.weight.shape


@pytest.mark.parametrize(
    'edit, message',
    [
        (
            lambda state: state.pop('img_neck.fpn_convs.0.conv.weight'),
            r'Missing key.*"img_neck.fpn_convs.0.conv.weight"\.',
        ),
        (lambda state: state.update(other=torch.zeros(1)), r'Unexpected key.*"other"\.'),
        (
            lambda state: state.update({'pts_fusion.gate.1.bias': torch.zeros(1)}),
            'pts_fusion.gate.1.bias',
        ),
        (
            lambda state: state.update({'occ_head.predicter.2.bias': torch.zeros(17)}),
            'size mismatch for occ_head.predicter.2.bias',
        ),
    ],
)
def test_a_student_checkpoint_that_does_not_fit_is_named(tmp_path, edit, message):
    path = tmp_path / 'student.pth'
    state = dict(student_file(path))
    edit(state)
    torch.save(state, path)
    teacher = build_model(FUSION, camera_checkpoint=str(path))
    with pytest.raises(ValueError, match=f'(?s)student.pth.*{message}'):
        teacher.init_weights()


def test_teachers_share_the_students_head():
    head = load_config(STUDENT).model.occ_head
    for path in (FUSION, LIDAR):
        assert load_config(path).model.occ_head == head
    head = load_config(FULL_STUDENT).model.occ_head
    for path in (FULL, FULL_01, FULL_LIDAR):
        assert load_config(path).model.occ_head == head


@pytest.mark.parametrize('path', [FUSION, LIDAR, FULL, FULL_01, FULL_LIDAR])
def test_teachers_are_tested_with_points(path):
    config = load_config(path)
    for loader in (config.val_dataloader, config.test_dataloader):
        transforms = [t.type for t in loader.dataset.pipeline]
        assert 'radocc_plugin.LoadLidarPoints' in transforms
        assert 'radocc_plugin.PointsToDepthMaps' in transforms
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
    with pytest.raises(ValueError, match='this teacher is LiDAR-only'):
        build_model(LIDAR, camera_checkpoint='student.pth')


@pytest.mark.parametrize(
    'path',
    [
        path
        for path in sorted((ROOT / 'configs/_base_/radocc').glob('*teacher*'))
        if not path.stem.startswith('daocc')
    ],
    ids=lambda path: path.stem,
)
def test_radocc_bases_name_a_teacher_and_its_last_checkpoint(path):
    teacher = Config.fromfile(path).radocc.teacher
    config = load_config(teacher.model)
    assert config.model.type == 'radocc_plugin.OccTeacher'
    name = Path(teacher.model).stem
    last = 'epoch_{max_epochs}' if 'max_epochs' in config.train_cfg else 'iter_{max_iters}'
    last = last.format(**config.train_cfg)
    assert teacher.checkpoint == f'work_dirs/{name}/{last}.pth'


@pytest.mark.parametrize('path', [FULL, FULL_01, FULL_LIDAR])
def test_full_size_teachers_encode_onto_the_full_grid(path):
    model = build_model(path)
    stages = len(model.pts_middle_encoder.encoder_layers) - 1
    assert [n >> stages for n in model.pts_voxel_encoder.grid.shape] == [200, 200, 16]
    student = build_model(FULL_STUDENT).state_dict()
    state = model.state_dict()
    if model.pts_fusion is None:
        student = {
            k: v for k, v in student.items() if k.startswith(('img_bev_encoder_neck', 'occ_head'))
        }
    for key, value in student.items():
        assert state[key].shape == value.shape, key


@pytest.mark.slow
@pytest.mark.parametrize('path', [FULL, FULL_01])
def test_full_size_voxels_are_encoded_on_a_cpu(path):
    """Forward and backward in plain torch."""
    model = build_model(path)
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(2000, 5, generator=generator)
    points = points * torch.tensor([80, 80, 6.4, 255, 0.5]) - torch.tensor([40, 40, 1.0, 0, 0])
    (volume,) = model.pts_middle_encoder(model.pts_voxel_encoder([points]))
    assert volume.shape == (1, 32, 16, 200, 200)
    volume.square().mean().backward()
    for name, parameter in model.pts_middle_encoder.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name
