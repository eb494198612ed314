"""Parity with the published modules; sizes, seeds, tolerances of the cases."""

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from torch import nn

from radocc_plugin.datasets.keyframe import convert_keyframe
from radocc_plugin.datasets.transforms.bev import bda_matrix, flip_labels
from radocc_plugin.datasets.transforms.images import image_augmentation_matrix
from radocc_plugin.datasets.transforms.sweeps import merge_sweeps, strictly_inside
from radocc_plugin.models.daocc import FusionGeometry, HardVoxelMean
from radocc_plugin.models.daocc.camera_branch import first_camera, project
from radocc_plugin.models.daocc.detector import augment_points, build_all, conv_fuser
from radocc_plugin.models.daocc.occ_head import counted_cross_entropy, thin_free
from radocc_plugin.models.occ_teacher.sparse_conv import ActiveCells, SparseVolume
from radocc_plugin.models.occ_teacher.sparse_encoder import run_in_torch
from radocc_plugin.registry import DATASETS, MODELS
from tests.support.golden_daocc import (
    build_detector,
    fill,
    geometry_of,
    our_config,
    published_state,
)
from tests.support.models import build_model, load_config

FULL = 'projects/DAOcc/configs/daocc_r50-256x704_8xb4-6e_occ3d.py'
MICROSECOND = 1e-6


def gradient_names(case, prefix='grad/'):
    return [name[len(prefix) :] for name in case.output_names() if name.startswith(prefix)]


def compare_gradients(golden, case, module):
    parameters = dict(module.named_parameters())
    for name in gradient_names(case):
        golden.compare(case, f'grad/{name}', parameters[name].grad.norm())


def compare_statistics(golden, case, module):
    state = module.state_dict()
    for name in gradient_names(case, 'train/'):
        if name in state:
            golden.compare(case, f'train/{name}', state[name])


def test_golden_daocc_points(golden):
    case = golden.case('daocc_points')
    key, stamps = case.input('key').numpy(), case.input('timestamps').numpy()
    sweeps = case.input('sweeps').numpy()
    matrices = np.tile(np.eye(4), (len(sweeps), 1, 1))
    matrices[:, :3, :3] = case.input('sensor2lidar_rotation')
    matrices[:, :3, 3] = case.input('sensor2lidar_translation')
    lags = (stamps[0] - stamps[1:]) * MICROSECOND
    for name, number in (('', len(sweeps)), ('no_sweeps/', 0)):
        points = merge_sweeps(
            key,
            sweeps[:number],
            matrices[:number],
            lags[:number],
            case.config['remove_close'],
            case.config['sweeps_num'],
        )
        golden.compare(case, f'{name}points', points)
        golden.compare(
            case, f'{name}filtered', strictly_inside(points, case.config['point_cloud_range'])
        )


def test_golden_daocc_augmentation(golden):
    case = golden.case('daocc_augmentation')
    draws = [case.input(name).tolist() for name in ('resize', 'crop', 'flip', 'rotate')]
    # published matrices scale by the factor that was drawn
    golden.compare(
        case,
        'img_aug_matrix',
        np.stack(
            [
                image_augmentation_matrix((1, 1), (factor, factor), *draw)
                for factor, *draw in zip(*draws)
            ]
        ),
    )
    labels = dict(semantics=case.input('labels').numpy())
    for horizontal in (0, 1):
        for vertical in (0, 1):
            name = f'flip_xy/{horizontal}{vertical}/'
            # horizontal coin: y, vertical coin: x
            flips = bool(vertical), bool(horizontal)
            matrix = torch.from_numpy(bda_matrix(0.0, 1.0, *flips))
            golden.compare(case, f'{name}labels', flip_labels(labels, *flips)['semantics'])
            (points,) = augment_points([case.input('points')], matrix[None])
            golden.compare(case, f'{name}points', points)
            for frame in ('lidar', 'occ'):
                golden.compare(case, f'{name}{frame}_aug_matrix', matrix)


@pytest.mark.parametrize(
    'name, train, half', [('', False, False), ('train/', True, False), ('half/', False, True)]
)
def test_golden_daocc_voxelize(golden, name, train, half):
    case = golden.case('daocc_voxelize')
    voxels = HardVoxelMean(**case.config, round_to_half=half).train(train)
    points = [case.input(n) for n in case.input_names()]
    volume = voxels(points)
    golden.compare(case, f'{name}coords', volume.active.cells().int())
    golden.compare(case, f'{name}features', volume.features)
    golden.compare(case, f'{name}voxels', np.array([len(volume.features)], np.int32))
    clouds = [voxels.voxelise(cloud) for cloud in points]
    golden.compare(case, f'{name}num_points', torch.cat([cloud.counts for cloud in clouds]).int())
    if not name:
        starts = np.cumsum([0, *(len(cloud.keys) for cloud in clouds)])
        golden.compare(
            case,
            'voxel_order',
            torch.cat([cloud.order + int(start) for cloud, start in zip(clouds, starts)]).int(),
        )


def build_filled(golden, case, published):
    """The one module of a case with its weights, in eval mode."""
    module = MODELS.build(our_config(published)).eval()
    prefix = case.config['prefix']
    golden.check_keys(published_state(module, prefix), case)
    fill(golden, case, module, prefix)
    return module


def voxels_of(case, features):
    """The case's voxels with their features."""
    shape = case.config['backbone']['sparse_shape']
    cells = case.input('coords').long()
    keys = cells[:, 0]
    for axis in range(3):
        keys = keys * shape[axis] + cells[:, axis + 1]
    keys, order = keys.sort()
    batch = int(cells[:, 0].max()) + 1
    return SparseVolume(features[order], ActiveCells(keys, shape, batch))


def test_golden_daocc_sparse_encoder_by_spconv(golden):
    pytest.importorskip('spconv', reason='spconv is not installed')
    case = golden.case('daocc_sparse_encoder')
    encoder = build_filled(golden, case, case.config['backbone'])
    encoder.backend = 'spconv'
    with torch.no_grad():
        golden.compare(case, 'out', encoder(voxels_of(case, case.input('features'))))


def test_golden_daocc_sparse_encoder(golden):
    case = golden.case('daocc_sparse_encoder')
    encoder = build_filled(golden, case, case.config['backbone'])
    encoder.backend = 'torch'
    features = case.input('features').requires_grad_()
    voxels = voxels_of(case, features)

    with torch.no_grad():
        volume = run_in_torch(encoder.conv_input, voxels)
        layers = dict(encoder.encoder_layers.named_children())
        for name, layer in dict(conv_input=None, **layers, conv_out=encoder.conv_out).items():
            volume = volume if layer is None else run_in_torch(layer, volume)
            golden.compare(case, f'active/{name}', np.array([len(volume.features)], np.int32))
            if layer is None:
                continue
            mask = volume._replace(features=torch.ones(len(volume.features), 1)).dense()
            golden.compare(case, name, volume.dense())
            golden.compare(case, f'mask/{name}', mask[:, 0] > 0)

    out = encoder(voxels)
    golden.compare(case, 'out', out)
    (out * case.input('cotangent')).sum().backward()
    golden.compare(case, 'grad_features', features.grad)
    compare_gradients(golden, case, encoder)
    with torch.no_grad():
        golden.compare(case, 'train/out', encoder.train()(voxels))
    compare_statistics(golden, case, encoder)


def test_golden_daocc_image_neck(golden):
    case = golden.case('daocc_image_neck')
    neck = build_filled(golden, case, case.config['neck'])
    for level, out in enumerate(neck([case.input(name) for name in ('c3', 'c4', 'c5')])):
        golden.compare(case, f'level{level}', out)


def test_golden_daocc_bev_transform(golden):
    case = golden.case('daocc_bev_transform')
    published = case.config['vtransform']
    transform = build_filled(golden, case, published)
    golden.compare(case, 'ref_3d', transform.ref_3d)
    geometry, size = geometry_of(case), published['input_size']

    positions, visible = project(transform.ref_3d, geometry.lidar2pixel(), size)
    seen = visible.any(1)
    golden.compare(case, 'visible', seen)
    camera = first_camera(visible).int().argmax(1)
    golden.compare(case, 'camera', camera.to(torch.uint8))
    chosen = positions.gather(1, camera[:, None, :, None].expand(-1, 1, -1, 2))[:, 0]
    golden.compare(case, 'uv', chosen * seen[..., None])

    features = case.input('features').requires_grad_()
    volume = transform(features, geometry, size)
    golden.compare(case, 'volume', volume)
    (volume * case.input('cotangent')).sum().backward()
    golden.compare(case, 'grad_x_norm', features.grad.norm())
    golden.compare(case, 'grad_transfer', transform.transfer_conv.weight.grad)

    transform.version = 1
    with torch.no_grad():
        golden.compare(case, 'info/v1_volume', transform(features, geometry, size))


def test_golden_daocc_fuser_decoder(golden):
    case = golden.case('daocc_fuser_decoder')
    fuser = dict(case.config['fuser'])
    fuser.pop('type')
    model = nn.Module()
    model.fuser = conv_fuser(**fuser)
    model.decoder = build_all(
        {name: our_config(part) for name, part in case.config['decoder'].items()}
    )
    golden.check_keys(published_state(model), case)
    fill(golden, case, model)
    model.eval()

    camera = case.input('camera').requires_grad_()
    lidar = case.input('lidar').requires_grad_()

    def run():
        fused = model.fuser(torch.cat([camera, lidar], 1))
        stages = model.decoder['backbone'](fused)
        return fused, stages, model.decoder['neck'](stages)

    fused, stages, out = run()
    golden.compare(case, 'fused', fused)
    for number, stage in enumerate(stages):
        golden.compare(case, f'stage{number}', stage)
    golden.compare(case, 'out', out)
    (out * case.input('cotangent')).sum().backward()
    golden.compare(case, 'grad_camera_norm', camera.grad.norm())
    golden.compare(case, 'grad_lidar_norm', lidar.grad.norm())
    compare_gradients(golden, case, model)
    model.train()
    with torch.no_grad():
        golden.compare(case, 'train/out', run()[2])
    compare_statistics(golden, case, model)


def test_golden_daocc_occ_head(golden):
    case = golden.case('daocc_occ_head')
    head = build_filled(golden, case, case.config['head'])
    geometry = geometry_of(case)
    bev = case.input('bev').requires_grad_()
    sample = head.coordinate_transform
    golden.compare(case, 'grid', sample.positions(geometry))
    with torch.no_grad():
        golden.compare(case, 'sampled', sample(bev.transpose(2, 3), geometry))
    logits = head(bev, geometry)
    golden.compare(case, 'logits', logits)
    golden.compare(case, 'classes', logits.argmax(-1).to(torch.uint8))
    loss = counted_cross_entropy(logits, case.input('labels'), case.input('mask_camera'))
    golden.compare(case, 'loss', loss)
    loss.backward()
    golden.compare(case, 'grad_bev_norm', bev.grad.norm())
    compare_gradients(golden, case, head)


def test_golden_daocc_occ_loss(golden):
    case = golden.case('daocc_occ_loss')
    config = case.config
    labels, mask = case.input('labels'), case.input('mask_camera')
    with_ignore = labels.masked_fill(case.input('ignore'), config['ignore_index'])
    free = config['free_label']

    def thinned(labels, share):
        torch.manual_seed(config['torch_seed'])
        return thin_free(labels, free, share)

    kept = config['keep_free_ratio']
    for name, target, counted in (
        ('masked', labels, mask),
        ('with_ignore/masked', with_ignore, mask),
        ('unmasked/all', labels, thinned(labels, 1.0)),
        ('unmasked/no_free', labels, labels != free),
        ('unmasked/seeded', labels, thinned(labels, kept)),
        ('with_ignore/unmasked_seeded', with_ignore, thinned(with_ignore, kept)),
    ):
        logits = case.input('logits').requires_grad_()
        loss = counted_cross_entropy(logits, target, counted)
        loss.backward()
        golden.compare(case, f'{name}/value', loss)
        golden.compare(case, f'{name}/grad', logits.grad)
        golden.compare(case, f'{name}/grad_norm', logits.grad.norm())


def compare_maps(golden, case, model, imgs, points, geometry):
    """Every map on the way that the case has; returns the logits."""
    names = case.output_names()

    def compare(name, value):
        if name in names:
            golden.compare(case, name, value)

    camera, lidar = model.encoders['camera'], model.encoders['lidar']
    voxels = lidar['voxelize'](points)
    compare('voxels', np.array([len(voxels.features)], np.int32))
    levels = camera['backbone'](imgs.flatten(0, 1))
    compare('c3', levels[0])
    compare('c5', levels[2])
    image = camera['neck'](levels)[0]
    compare('image', image)
    camera_map = camera['vtransform'](image.unflatten(0, imgs.shape[:2]), geometry, imgs.shape[-2:])
    compare('camera', camera_map)
    lidar_map = lidar['backbone'](voxels)
    compare('lidar', lidar_map)
    fused = model.fuser(torch.cat([camera_map, lidar_map], 1))
    compare('fused', fused)
    decoded = model.decoder['neck'](model.decoder['backbone'](fused))
    compare('decoded', decoded)
    logits = model.heads['occ'](decoded, geometry)
    compare('logits', logits)
    compare('classes', logits.argmax(-1).to(torch.uint8))
    return logits


@pytest.mark.slow
def test_golden_daocc_full(golden):
    case = golden.case('daocc_full')
    model = build_detector(case.config['model']).eval()
    golden.check_keys(published_state(model), case)
    fill(golden, case, model)
    geometry = geometry_of(case)
    imgs = case.input('img')
    scale, shift = (torch.tensor(case.config[f'points_{name}']) for name in ('scale', 'shift'))
    points = list(case.input('points_unit') * scale + shift)

    logits = compare_maps(golden, case, model, imgs, points, geometry)
    labels, mask = case.input('labels'), case.input('mask_camera')
    loss = counted_cross_entropy(logits, labels, mask)
    golden.compare(case, 'loss_occ', loss)
    loss.backward()
    compare_gradients(golden, case, model)
    golden.compare(
        case,
        'grad_total',
        torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm(),
    )
    assert [n for n, p in model.named_parameters() if p.grad is None] == case.config[
        'parameters_without_gradient'
    ]
    with torch.no_grad():
        logits = model.train().heads['occ'](model.bev_map(imgs, points, geometry), geometry)
        golden.compare(case, 'train/loss_occ', counted_cross_entropy(logits, labels, mask))
    compare_statistics(golden, case, model)


@pytest.mark.slow
def test_golden_daocc_keyframe(golden, shared, tmp_path):
    """Published size, from the files on: the data path takes part."""
    case = golden.case('daocc_keyframe')
    convert_keyframe(str(shared / 'data' / case.config['frame'].split()[0]), str(tmp_path))
    config = load_config(FULL)
    assert list(config.cams) == case.config['cameras']
    pipeline = [
        step
        for step in config.test_dataloader.dataset.pipeline
        if step.type != 'radocc_plugin.LoadOcc3D'
    ]
    dataset = dict(config.test_dataloader.dataset, data_root=str(tmp_path), pipeline=pipeline)
    model = build_model(FULL, **{'encoders.lidar.voxelize.round_to_half': False}).eval()
    fill(golden, case, model)
    batch = model.data_preprocessor(pseudo_collate([DATASETS.build(dataset)[0]]))
    imgs, points = (batch['inputs'][n] for n in ('imgs', 'lidar_points'))
    golden.compare(case, 'img', imgs)
    golden.compare(case, 'points', points[0])
    geometry = FusionGeometry.from_data_samples(batch['data_samples'], augment_lidar=False)
    expected = geometry_of(case)
    for name in ('cam2img', 'cam2lidar', 'img_aug_mat', 'lidar2ego'):
        torch.testing.assert_close(
            getattr(geometry, name), getattr(expected, name).double(), rtol=1e-5, atol=1e-4
        )
    with torch.no_grad():
        compare_maps(golden, case, model, imgs, points, geometry)
