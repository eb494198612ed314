"""The model, its published files, and the frames it answers in."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict

from radocc_plugin.datasets.info_file import load_infos
from radocc_plugin.datasets.keyframe import convert_keyframe
from radocc_plugin.distillation import FrozenTeacher
from radocc_plugin.engine.operators import OperatorCounter
from radocc_plugin.geometry import Cameras, VoxelGrid, transform_points
from radocc_plugin.models.daocc import BEVTransform, DAOccHead, FusionGeometry, HardVoxelMean
from radocc_plugin.models.daocc.camera_branch import project
from radocc_plugin.models.daocc.occ_head import CrossCoordinateSample
from radocc_plugin.models.occ_teacher import sparse_encoder
from radocc_plugin.registry import DATASETS, MODELS
from radocc_plugin.rendering import VolumeRenderer
from radocc_plugin.structures import OccData
from tests.support.golden_daocc import published_state
from tests.support.models import build_model, load_config, make_sample, read_key_list
from tests.support.waits import noted_waits, on_device

FOLDER = 'projects/DAOcc/configs/'
FULL = FOLDER + 'daocc_r50-256x704_8xb4-6e_occ3d.py'
NO_MASK = FOLDER + 'daocc_r50-no-mask-256x704_8xb4-6e_occ3d.py'
TINY = FOLDER + '_base_/daocc_tiny.py'
PUBLISHED = 'daocc_occ3d_nus_w_mask'
NEAR = (-20.0, -20.0, -1.0, 20.0, 20.0, 5.4)
LIDAR2EGO = np.array([[0.0, 1, 0, 0.94], [-1, 0, 0, 0], [0, 0, 1, 1.84], [0, 0, 0, 1]])


def make_batch(bda_mat=np.eye(4), points=3000, seed=0):
    """Inputs and a data sample with LiDAR points in the LiDAR frame."""
    generator = torch.Generator().manual_seed(seed)
    sample = make_sample(seed=seed)
    sample.set_metainfo(dict(lidar2ego=LIDAR2EGO, bda_mat=bda_mat))
    grid = (100, 100, 16)
    sample.gt_occ = OccData(
        semantics=torch.randint(0, 18, grid, generator=generator).byte(),
        mask_camera=torch.rand(grid, generator=generator) < 0.3,
    )
    scale = torch.tensor([48, 48, 6, 255, 0.45])
    shift = torch.tensor([24, 24, 4, 0, 0])
    inputs = dict(
        imgs=torch.randn(1, 6, 3, 96, 256, generator=generator),
        lidar_points=[torch.rand(points, 5, generator=generator) * scale - shift],
    )
    return inputs, [sample]


def turned(degrees):
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


# ---------------------------------------------------------- published files
def test_keys_shapes_and_parameters_are_the_published_ones():
    published = {
        key: value.shape
        for key, value in read_key_list(PUBLISHED).items()
        if not key.startswith('heads.object.')
    }
    model = build_model(FULL)
    ours = published_state(model)
    assert {key: value.shape for key, value in ours.items()} == published
    assert sum(p.numel() for p in model.parameters()) == 54_536_240
    assert build_model(NO_MASK).state_dict().keys() == published.keys()


def test_a_published_file_fills_everything_strictly():
    state = read_key_list(PUBLISHED)
    model = build_model(FULL)
    for name, buffer in model.named_buffers():
        if name.endswith(('ref_3d', 'ref_points')):
            state[name] = buffer.clone()
    load_state_dict(model, state, strict=True)
    assert not any(p.any() for p in model.parameters())


def published_file(model, path, **changes):
    """Weights under the published names and in the published layout."""
    generator = torch.Generator().manual_seed(1)
    constants = dict(model.named_buffers())
    state = {}
    for key, value in published_state(model).items():
        if key.endswith(('ref_3d', 'ref_points')):
            state[key] = constants[key]
        elif value.is_floating_point():
            state[key] = torch.rand(value.shape, generator=generator)
        else:
            state[key] = value
    state['heads.object.shared_conv.conv.weight'] = torch.rand(4, 4, 3, 3)
    state['heads.object.task_heads.0.reg.1.bias'] = torch.rand(2)
    state.update(changes)
    torch.save(dict(state_dict=state, meta=dict(epoch=6), optimizer={}), path)
    return state


def test_a_published_file_serves_as_teacher(tmp_path):
    path = str(tmp_path / 'daocc.pth')
    state = published_file(build_model(TINY), path)
    teacher = FrozenTeacher(load_config(TINY).model, path)
    loaded = published_state_of(teacher.model(torch.device('cpu')))
    assert all(torch.equal(state[key], value) for key, value in loaded.items())


def published_state_of(model):
    """The model's values in the published layout."""
    state = dict(model.state_dict())
    for name, layer in model.named_modules():
        if hasattr(layer, 'subm') and sparse_encoder.has_spconv():
            key = f'{name}.weight'
            state[key] = state[key].permute(1, 2, 3, 4, 0)
    return state


def test_the_ignored_detection_head_is_listed(tmp_path, monkeypatch):
    path = str(tmp_path / 'daocc.pth')
    model = build_model(TINY)
    state = published_file(model, path)
    lines = []
    monkeypatch.setattr(
        'radocc_plugin.models.daocc.detector.print_log', lambda text, *args: lines.append(text)
    )
    load_state_dict(model, state, strict=True)
    (line,) = lines
    assert 'ignored 2 entries of the detection head' in line
    assert all(key in line for key in state if 'heads.object' in key)


@pytest.mark.parametrize(
    'key, change',
    [
        ('encoders.camera.vtransform.ref_3d', lambda places: places * 0.9),
        ('heads.occ.coordinate_transform.ref_points', lambda places: places[:9]),
    ],
)
def test_a_file_of_another_range_is_refused(tmp_path, key, change):
    path = str(tmp_path / 'daocc.pth')
    model = build_model(TINY)
    places = dict(model.named_buffers())[key]
    published_file(model, path, **{key: change(places)})
    with pytest.raises(ValueError, match=f'{key} of the file'):
        FrozenTeacher(load_config(TINY).model, path).model(torch.device('cpu'))


@pytest.mark.skipif(sparse_encoder.has_spconv(), reason='this environment has spconv')
def test_weights_saved_with_spconv_2_load_without():
    source, other = build_model(TINY, seed=1), build_model(TINY)
    state = source.state_dict()
    saved = {
        key: value.permute(4, 0, 1, 2, 3) if value.dim() == 5 else value
        for key, value in state.items()
    }
    other.load_state_dict(saved, strict=True)
    assert all(torch.equal(value, state[key]) for key, value in other.state_dict().items())


# ------------------------------------------------------------------- frames
FLIPS = [(x, y) for x in (1, -1) for y in (1, -1)]


@pytest.fixture(scope='module')
def tiny():
    return build_model(TINY).eval()


@pytest.mark.parametrize('x, y', FLIPS)
def test_a_mirrored_ego_frame_mirrors_the_logits_exactly(tiny, x, y):
    inputs, samples = make_batch()
    _, mirrored = make_batch(np.diag([x, y, 1.0, 1.0]))
    with torch.no_grad():
        plain = tiny(inputs, samples)
        logits = tiny(inputs, mirrored)
    axes = [axis + 1 for axis, sign in enumerate((x, y)) if sign < 0]
    assert torch.equal(logits, plain.flip(axes))
    assert plain.shape == (1, 100, 100, 16, 18)


@pytest.mark.parametrize(
    'matrix',
    [turned(20), np.diag([-1.0, 1, 1, 1]) @ turned(-20), np.diag([-1.0, -1, 1, 1]) @ turned(5)],
)
def test_the_map_is_sampled_where_a_turned_grid_lies(tiny, matrix):
    """The head's own part reads each column at its true place."""
    _, samples = make_batch(matrix)
    head = tiny.heads['occ']
    sample = head.coordinate_transform
    geometry = FusionGeometry.from_data_samples(samples, augment_lidar=False)
    positions = sample.positions(geometry)[0] * 24
    columns = positions.view(1, 100, 100, 1, 2).transpose(1, 2)
    columns = geometry.mirrored(columns)[0, :, :, 0]
    grid = VoxelGrid(NEAR, (100, 100, 1))
    centres = grid.centres()[:, :, 0].double()
    centres[..., 2] = 0
    augmented2lidar = np.linalg.inv(matrix @ LIDAR2EGO)
    expected = transform_points(torch.from_numpy(augmented2lidar), centres.view(-1, 3))
    torch.testing.assert_close(columns.reshape(-1, 2).double(), expected[:, :2], rtol=0, atol=1e-4)


def test_training_augments_the_lidar_frame_along_its_own_axes():
    """Flips of DAOcc: the same letter in the LiDAR and the ego frame."""
    matrix = np.diag([1.0, -1, 1, 1])
    _, samples = make_batch(matrix)
    geometry = FusionGeometry.from_data_samples(samples, augment_lidar=True)
    for name in ('lidar_aug_mat', 'ego_aug_mat'):
        np.testing.assert_array_equal(getattr(geometry, name)[0], matrix)
    assert (geometry.mirror == 1).all()


def test_a_scaled_ego_frame_is_refused():
    inputs, samples = make_batch(np.diag([1.1, 1.1, 1.1, 1]))
    with pytest.raises(ValueError, match='bda_mat of rotations and flips'):
        FusionGeometry.from_data_samples(samples, augment_lidar=False)


class GroundTruthDecoder(torch.nn.Module):
    """Answers with a scene instead of a decoded map: one block of class 4,
    15 m ahead of the ego and 3 m to its left, on a road of class 11."""

    def __init__(self, cells=60, reach=24.0):
        super().__init__()
        x, y = torch.meshgrid(
            *[(torch.arange(cells) + 0.5) * 2 * reach / cells - reach] * 2, indexing='ij'
        )
        # LiDAR x is the ego's right, y its front, 0.94 m ahead of it
        ahead, left = y + 0.94, -x
        self.block = ((ahead - 15).abs() < 1.2) & ((left - 3).abs() < 2.0)

    def forward(self, maps):
        return torch.stack([self.block, ~self.block]).float()[None]


class Columns(torch.nn.Module):
    """Logits of whole columns (..., 16 * 18) from a feature: block or not."""

    def forward(self, features):
        logits = features.new_zeros(*features.shape[:-1], 16, 18)
        logits[..., :3, 11] = 12
        logits[..., 3:, 17] = 12
        block = logits.clone()
        block[..., 3:8, 17] = 0
        block[..., 3:8, 4] = 12
        is_block = features[..., :1, None] > 0.5
        return torch.where(is_block, block, logits).flatten(-2)


def scene_head():
    """The head's sampling of a map of two channels, with known columns."""
    head = DAOccHead(
        dict(
            point_cloud_range=NEAR,
            grid_shape=(100, 100),
            lidar_range=(-24.0, -24.0, 24.0, 24.0),
            in_channels=2,
        ),
        in_dim=2,
        out_dim=2,
    )
    transfer = head.coordinate_transform.transfer_conv
    transfer.weight.data = torch.eye(2)[:, :, None, None]
    transfer.bias.data.zero_()
    head.final_conv = torch.nn.Identity()
    head.predicter = Columns()
    return head


@pytest.mark.parametrize(
    'matrix',
    [
        np.diag([-1.0, 1, 1, 1]),
        np.diag([1.0, -1, 1, 1]),
        np.diag([-1.0, -1, 1, 1]),
        turned(20),
        np.diag([1.0, -1, 1, 1]) @ turned(-9),
    ],
    ids=['flip_x', 'flip_y', 'both', 'turned', 'turned_flipped'],
)
def test_cameras_see_the_same_scene_with_and_without_bda(matrix):
    model = build_model(TINY).eval()
    model.decoder['neck'] = GroundTruthDecoder()
    model.heads['occ'] = scene_head()
    renderer = VolumeRenderer(NEAR, (24, 64))
    depths = []
    for bda_mat in (np.eye(4), matrix):
        inputs, samples = make_batch(bda_mat)
        with torch.no_grad():
            logits = model(inputs, samples)
            geometry = renderer.trace_all(Cameras.from_data_samples(samples), logits.shape[1:4])
            depths.append(renderer(logits, geometry).depth)
    plain, augmented = depths
    # the block is hit, by the front camera, where it stands
    assert ((plain > 13) & (plain < 15)).sum() > 5
    difference = (plain - augmented).abs()
    if np.allclose(np.abs(matrix), np.eye(4)):
        assert difference.max() < 1e-3
    else:  # voxels are squares that do not turn with the scene
        assert difference.median() < 0.4


def test_geometry_takes_points_through_voxels_map_and_ego_grid():
    """A return lands in the map's cell that the head reads for its place."""
    model = build_model(TINY).eval()
    ego_points = torch.tensor([[12.2, 5.0, 0.2], [-8.1, -16.2, 0.1], [3.0, 14.2, 0.3]])
    lidar_points = transform_points(torch.from_numpy(np.linalg.inv(LIDAR2EGO)), ego_points)
    cloud = torch.cat([lidar_points, torch.tensor([[90.0, 0]] * 3)], 1)
    volume = model.encoders['lidar']['voxelize']([cloud]).dense()
    occupied = torch.nn.functional.max_pool3d(volume[:, 3:4], (4, 4, 41))
    _, samples = make_batch()
    head = model.heads['occ']
    geometry = FusionGeometry.from_data_samples(samples, augment_lidar=False)
    places = head.coordinate_transform.positions(geometry).view(1, 100, 100, 2)
    ego_map = torch.nn.functional.grid_sample(
        occupied[..., 0].transpose(2, 3), places, align_corners=False
    )[0, 0].T
    grid = VoxelGrid(NEAR, (100, 100, 1))
    cells, inside = grid.index(ego_points)
    assert inside.all() and (volume[:, 3] > 0).sum() == 3
    for x, y, _ in cells.tolist():
        assert ego_map[x - 1 : x + 2, y - 1 : y + 2].max() > 40
    far = ego_map.clone()
    for x, y, _ in cells.tolist():
        far[x - 4 : x + 5, y - 4 : y + 5] = 0
    assert not far.any()


def test_a_prediction_starts_few_kernels():
    """Sizes do not change their number. The sparse encoder is counted apart:
    in plain torch each of its layers gathers for each of 27 places."""
    config = load_config(FULL)
    config.model.encoders.camera.backbone.pop('init_cfg')
    model = MODELS.build(config.model).eval()
    inputs, samples = make_batch(points=300)
    inputs['imgs'] = inputs['imgs'][..., :64, :64]
    place = ['dense']
    sparse = model.encoders['lidar']['backbone']
    sparse.register_forward_pre_hook(lambda *_: place.__setitem__(0, 'sparse'))
    sparse.register_forward_hook(lambda *_: place.__setitem__(0, 'dense'))
    with OperatorCounter(lambda: place[0]) as counter, torch.no_grad():
        model(inputs, samples, mode='tensor')
    assert counter.counts['dense'] <= 1.3 * 397
    assert counter.counts['sparse'] <= 1.3 * 2648


@pytest.mark.slow
def test_boxes_of_the_keyframe_hold_what_the_lidar_saw(shared, tmp_path):
    """The sweep, through voxels, map and ego grid, lands where boxes are."""
    convert_keyframe(str(shared / 'data' / 'nuscenes_frame'), str(tmp_path))
    config = load_config(FULL)
    item = DATASETS.build(dict(config.test_dataloader.dataset, data_root=str(tmp_path)))[0]
    voxels = HardVoxelMean(config.lidar_range, (0.075, 0.075, 0.2)).eval()(
        [item['inputs']['lidar_points']]
    )
    lidar2ego = torch.from_numpy(item['data_samples'].lidar2ego)
    heights = transform_points(lidar2ego, voxels.features[:, :3])[:, 2]
    cells = voxels.active.cells()[heights > 0.5]
    occupied = torch.zeros(1, 1, 180, 180)
    occupied[0, 0, cells[:, 1] // 8, cells[:, 2] // 8] = 1
    geometry = FusionGeometry.from_data_samples([item['data_samples']], False)
    places = (
        CrossCoordinateSample(config.occ_range, (200, 200), (-54.0, -54.0, 54.0, 54.0), 1, 1)
        .positions(geometry)
        .view(1, 200, 200, 2)
    )
    ego_map = (
        torch.nn.functional.grid_sample(occupied.transpose(2, 3), places, align_corners=False)[
            0, 0
        ].T
        > 0.25
    )

    ground = VoxelGrid(config.occ_range, (200, 200, 1)).centres()[:, :, 0]
    ground[..., 2] = 0
    in_lidar = transform_points(torch.linalg.inv(lidar2ego), ground.view(-1, 3)).view(200, 200, 3)
    (info,) = load_infos(str(tmp_path / 'radocc_infos_val.pkl'))['data_list']
    hits = []
    for instance in info['instances']:
        x, y, _, length, width, _, yaw = instance['bbox_3d']
        along = (in_lidar[..., 0] - x) * np.cos(yaw) + (in_lidar[..., 1] - y) * np.sin(yaw)
        across = (in_lidar[..., 1] - y) * np.cos(yaw) - (in_lidar[..., 0] - x) * np.sin(yaw)
        # half a cell of the map around the box
        inside = (along.abs() < length / 2 + 0.3) & (across.abs() < width / 2 + 0.3)
        if inside.any() and instance['num_lidar_pts'] >= 10:
            hits.append(bool(ego_map[inside].any()))
    assert len(hits) > 10 and all(hits)
    assert ego_map.float().mean() < 0.1  # few cells are occupied at all


def test_positions_are_those_of_the_cameras():
    """Our projection agrees with ``Cameras`` for points of the ego frame."""
    _, samples = make_batch()
    geometry = FusionGeometry.from_data_samples(samples, augment_lidar=False)
    generator = torch.Generator().manual_seed(0)
    lidar = torch.rand(500, 3, generator=generator) * 40 - 20
    positions, visible = project(lidar, geometry.lidar2pixel(), (96, 256))
    cameras = Cameras.from_data_samples(samples)
    ego = transform_points(torch.from_numpy(LIDAR2EGO), lidar)
    pixels, depth = cameras.project(ego[None])
    assert visible.any() and not (visible & (depth <= 0)).any()
    torch.testing.assert_close(
        positions[visible] * torch.tensor([256.0, 96]), pixels[visible], rtol=0, atol=1e-2
    )


# --------------------------------------------------------------------- model
def test_a_few_steps_learn_a_frame():
    model = build_model(TINY).train()
    inputs, samples = make_batch()
    samples[0].gt_occ.semantics[:] = 17
    samples[0].gt_occ.semantics[:, :, :3] = 11
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    losses = []
    for _ in range(3):
        loss = model(inputs, samples, mode='loss')['loss_occ']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.grad is not None for p in model.parameters())


def test_the_teacher_waits_for_numbers_of_voxels_alone(tiny):
    """Of the cloud, and of each kind of sparse convolution in plain torch."""
    inputs, samples = make_batch()
    with noted_waits() as noted, torch.no_grad():
        tiny(on_device(inputs), [on_device(sample) for sample in samples])
    kinds = 3 + 3  # grids with submanifold convolutions, strided convolutions
    assert dict(noted) == {
        'models/daocc/voxels.py:voxelise': 3,
        'models/occ_teacher/sparse_conv.py:_pairs': 2 * kinds,
        'models/occ_teacher/sparse_conv.py:strided': 3,
    }


def test_geometry_stays_in_float32_under_autocast(tiny):
    """The network rounds, places do not: no voxel changes its camera."""
    inputs, samples = make_batch()
    geometry = FusionGeometry.from_data_samples(samples, augment_lidar=False)
    features = torch.randn(1, 6, 32, 12, 32)
    transform = tiny.encoders['camera']['vtransform']
    head = tiny.heads['occ'].coordinate_transform
    bev = torch.randn(1, 64, 60, 60)
    with torch.no_grad():
        exact = (transform(features, geometry, (96, 256)), head(bev, geometry))
        with torch.autocast('cpu', torch.bfloat16):
            rounded = (transform(features, geometry, (96, 256)), head(bev, geometry))
            logits = tiny(inputs, samples)
    assert all(map(torch.equal, exact, rounded))
    assert logits.isfinite().all()


def test_predictions_are_the_likeliest_classes(tiny):
    inputs, samples = make_batch()
    with torch.no_grad():
        logits = tiny(inputs, samples)
        (sample,) = tiny(inputs, samples, mode='predict')
    assert sample.pred_occ.semantics.dtype == torch.uint8
    assert torch.equal(sample.pred_occ.semantics.long(), logits[0].argmax(-1))


def test_a_thinned_loss_tells_the_distiller_its_weights():
    tap = build_model(NO_MASK).occ_tap
    assert tap['class_weight'] == [1.0] * 17 + [0.2]
    assert build_model(TINY).occ_tap['class_weight'] is None


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(mode='train'), "mode takes 'loss'"),
        (dict(inputs=dict(imgs=0, points=0)), 'DAOcc takes lidar_points'),
    ],
)
def test_wrong_calls_are_named(tiny, change, message):
    inputs, samples = make_batch()
    call = dict(inputs=inputs, data_samples=samples)
    with pytest.raises(ValueError, match=message):
        tiny(**{**call, **change})


@pytest.mark.parametrize(
    'build, message',
    [
        (lambda: BEVTransform(NEAR, (10, 10, 2), 4, 4, version=3), 'version takes 1 or 2'),
        (lambda: HardVoxelMean(NEAR, (0.3, 0.4, 0.4)), 'voxel_size'),
        (
            lambda: HardVoxelMean(NEAR, (0.4, 0.4, 0.4))([torch.zeros(3, 4)]),
            r'points take shape \(P, 5\)',
        ),
        (lambda: DAOccHead(dict(), keep_free=0.2), 'keep_free takes'),
    ],
)
def test_wrong_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_points_are_rounded_to_half_by_option():
    cloud = torch.tensor([[10.003, 0.1, 0.1, 3, 0], [10.006, 0.1, 0.1, 3, 0]])
    arguments = (NEAR, (0.4, 0.4, 0.4))
    exact = HardVoxelMean(*arguments)([cloud]).features
    rounded = HardVoxelMean(*arguments, round_to_half=True)([cloud]).features
    torch.testing.assert_close(exact[0, 0], torch.tensor(10.0045))
    torch.testing.assert_close(rounded[0, 0], cloud[:, 0].half().float().mean())


def test_an_empty_cloud_in_the_batch_leaves_the_others_alone(tiny):
    inputs, samples = make_batch()
    lidar = tiny.encoders['lidar']
    (cloud,) = inputs['lidar_points']
    with torch.no_grad():
        alone = lidar['backbone'](lidar['voxelize']([cloud]))
        both = lidar['backbone'](lidar['voxelize']([cloud, torch.zeros(0, 5)]))
    torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-6)
    assert not both[1].any()


def test_the_first_camera_wins_and_version_1_takes_the_mean():
    transform = BEVTransform(NEAR, (20, 20, 4), 2, 2)
    _, samples = make_batch()
    geometry = FusionGeometry.from_data_samples(samples, augment_lidar=False)
    features = torch.arange(6.0).view(1, 6, 1, 1, 1).expand(1, 6, 2, 12, 32)
    transform.transfer_conv.weight.data = torch.eye(2)[:, :, None, None]
    transform.transfer_conv.bias.data.zero_()
    _, visible = project(transform.ref_3d, geometry.lidar2pixel(), (96, 256))
    number = torch.arange(6.0)[:, None]
    seen = visible[0].any(0)
    assert (visible[0].sum(0) > 1).any() and not seen.all()
    first = torch.where(visible[0], number, 9).amin(0)
    mean = (visible[0] * number).sum(0) / visible[0].sum(0)
    for version in (2, 1):
        transform.version = version
        with torch.no_grad():
            volume = transform(features, geometry, (96, 256))
        listed = volume.view(4, 2, 20, 20).permute(0, 3, 2, 1).reshape(-1, 2)
        assert not listed[~seen].any()
        if version == 2:
            torch.testing.assert_close(listed[seen, 0], first[seen], rtol=0, atol=1e-4)
        else:  # half a cell inside of an image nothing is lost at its border
            exact = (listed[:, 0] - mean).abs() < 1e-4
            assert exact[seen].float().mean() > 0.8
            assert (listed[seen, 0] <= mean[seen] + 1e-4).all()


def test_matrices_of_a_batch_are_its_samples_own():
    _, (first,) = make_batch()
    _, (second,) = make_batch(turned(10), seed=1)
    both = FusionGeometry.from_data_samples([first, second], False)
    alone = FusionGeometry.from_data_samples([second], False)
    torch.testing.assert_close(both.lidar2pixel()[1:], alone.lidar2pixel())
    torch.testing.assert_close(both.ego2lidar()[1:], alone.ego2lidar())
    same = replace(alone, mirror=torch.ones(1, 2))
    logits = torch.rand(1, 4, 4, 2, 3)
    assert same.mirrored(logits) is logits
