"""Parity with the published BEVFormer-Occ: modules, head, stream, queue.

Sizes, seeds, hyper-parameters and tolerances are those of the cases.
"""

import numpy as np
import pytest
import torch

from radocc_plugin.models.bevformer import (
    BEVFormerOccHead,
    Frame,
    SceneStream,
    SpatialCrossAttention,
    TemporalSelfAttention,
    TransformerOcc,
)
from radocc_plugin.models.bevformer.ego_motion import bev_angle, bev_shift, rotate_bev
from radocc_plugin.models.bevformer.history import seen_from
from radocc_plugin.models.bevformer.pillars import (
    cell_centres,
    list_seen_queries,
    pillar_points,
    project_pillars,
)
from radocc_plugin.structures import OccData, OccDataSample
from tests.support.golden_bevformer import (
    as_map,
    build_detector,
    build_encoder_layer,
    build_head,
    calibration_of,
    ego2img_of,
    fill,
    frame_of,
    head_config,
    levels_of,
    previous_of,
)


@pytest.fixture(autouse=True)
def no_gradients(request):
    with torch.set_grad_enabled('loss' in request.node.name):
        yield


def project(case, bev_shape, constructor):
    """Pillar points of a case and where its cameras see them."""
    pc_range = constructor['pc_range']
    points = pillar_points(bev_shape, constructor['num_points_in_pillar'], pc_range)
    uv, inside = project_pillars(
        points, pc_range, ego2img_of(case), tuple(case.input('img_shape').tolist())
    )
    return points, uv, inside


def compare_projection(golden, case, uv, inside):
    """Published order is (N, B, Q, D)."""
    golden.compare(case, 'bev_mask', inside.transpose(0, 1))
    golden.compare(case, 'ref_cam_masked', (uv * inside[..., None]).transpose(0, 1))


def bev_shape_of(config):
    return config['bev_h'], config['bev_w']


def test_golden_bevformer_tsa(golden):
    case = golden.case('bevformer_tsa')
    published = case.config['constructor']
    assert published['num_levels'] == 1 and published['num_bev_queue'] == 2
    attention = fill(
        golden,
        case,
        TemporalSelfAttention(
            published['embed_dims'],
            published['num_heads'],
            published['num_points'],
            published['dropout'],
        ),
    )
    query, position, previous = (case.input(n) for n in ('query', 'query_pos', 'prev_bev'))
    bev_shape = tuple(case.config['bev'])
    points = cell_centres(bev_shape) + case.input('shift')[:, None]
    for name, before in (('no_prev', query), ('with_prev', previous)):
        golden.compare(case, name, attention(query, position, before, query, points, bev_shape))


def test_golden_bevformer_point_sampling(golden):
    case = golden.case('bevformer_point_sampling')
    config = case.config['constructor']
    points, uv, inside = project(case, bev_shape_of(config), config)
    golden.compare(case, 'ref_3d', points[None])
    compare_projection(golden, case, uv, inside)


def test_golden_bevformer_sca(golden):
    case = golden.case('bevformer_sca')
    config = case.config['constructor']
    attention = fill(
        golden,
        case,
        SpatialCrossAttention(
            config['embed_dims'],
            config['dropout'],
            num_heads=config['num_heads'],
            num_levels=config['num_levels'],
            num_points=config['num_points'],
        ),
    )
    _, uv, inside = project(case, bev_shape_of(config), config)
    compare_projection(golden, case, uv, inside)
    features, shapes = flatten(levels_of(case))
    golden.compare(
        case,
        'output',
        attention(case.input('query'), features, shapes, list_seen_queries(uv, inside)),
    )


def flatten(levels):
    """Levels without embeddings, (B, N, S, C), and their shapes."""
    return (
        torch.cat([x.flatten(3).transpose(2, 3) for x in levels], 2),
        [tuple(x.shape[-2:]) for x in levels],
    )


def test_golden_bevformer_layer(golden):
    case = golden.case('bevformer_layer')
    layer = build_encoder_layer(golden, case)
    config = case.config['constructor']
    bev_shape = bev_shape_of(config)
    spatial = config['attn_cfgs'][1]
    _, uv, inside = project(case, bev_shape, dict(config, **spatial))
    features, shapes = flatten(levels_of(case))
    query = case.input('query')
    golden.compare(
        case,
        'output',
        layer(
            query,
            case.input('bev_pos'),
            case.input('prev_bev'),
            query,
            cell_centres(bev_shape) + case.input('shift')[:, None],
            bev_shape,
            features,
            shapes,
            list_seen_queries(uv, inside),
        ),
    )


@pytest.mark.parametrize(
    'shift_frame, suffix, bev',
    [
        ('lidar', 'published', 'bev_with_prev'),
        ('ego', 'corrected', 'bev_with_prev_corrected_shift'),
    ],
)
def test_golden_bevformer_encoder(golden, shift_frame, suffix, bev):
    case = golden.case('bevformer_encoder')
    head = build_head(golden, case, shift_frame=shift_frame)
    levels, frame = levels_of(case), calibration_of(case)
    can_bus, previous = case.input('can_bus').numpy(), case.input('prev_bev')
    before = previous.clone()
    golden.compare(case, bev, head.encode(levels, previous_of(previous), can_bus=can_bus, **frame))
    assert torch.equal(previous, before)  # published code writes into it
    golden.compare(
        case,
        f'shift_{suffix}',
        bev_shift(can_bus, frame['bda_mat'], head.point_cloud_range, shift_frame),
    )


def test_golden_bevformer_encoder_first_frame_and_parts(golden):
    case = golden.case('bevformer_encoder')
    head = build_head(golden, case)
    levels, frame = levels_of(case), calibration_of(case)
    golden.compare(
        case,
        'bev_no_prev',
        head.encode(levels, can_bus=case.input('can_bus_first_frame').numpy(), **frame),
    )
    can_bus = case.input('can_bus')
    query = head.bev_embedding.weight + head.transformer.can_bus_mlp(can_bus.float())[:, None]
    golden.compare(case, 'bev_query_with_can_bus', query.transpose(0, 1))
    turned = rotate_bev(
        case.input('prev_bev'),
        head.bev_shape,
        bev_angle(can_bus.numpy(), frame['bda_mat']),
        head.transformer.rotate_center,
    )
    golden.compare(case, 'prev_bev_rotated', turned.transpose(0, 1))


def test_golden_bevformer_decoder(golden):
    case = golden.case('bevformer_decoder')
    config = case.config['constructor']
    module = TransformerOcc(
        encoder=dict(
            type='radocc_plugin.BEVFormerEncoder', num_layers=0, embed_dims=config['embed_dims']
        ),
        pillar_h=config['pillar_h'],
        out_dim=config['out_dim'],
        num_classes=config['num_classes'],
    )
    assert config['norm_cfg_3d'] == dict(type='BN3d')
    parts = torch.nn.ModuleDict(dict(decoder=module.decoder, predicter=module.predicter))
    fill(golden, case, parts)
    golden.compare(
        case, 'logits', module.eval().decode(case.input('bev_embed'), bev_shape_of(config))
    )


def test_golden_bevformer_head(golden):
    case = golden.case('bevformer_head')
    head, frame = build_head(golden, case), calibration_of(case)
    first = head.encode(levels_of(case), can_bus=case.input('can_bus_first_frame').numpy(), **frame)
    second = head.encode(
        levels_of(case, 'second_feat'),
        previous_of(first),
        can_bus=case.input('can_bus').numpy(),
        **frame,
    )
    for name, bev in (('frame1', first), ('frame2', second)):
        golden.compare(case, f'{name}_bev', as_map(bev, head.bev_shape))
        logits = head(bev)
        golden.compare(case, f'{name}_logits', logits)
    golden.compare(case, 'frame2_classes', logits.argmax(-1).byte())


@pytest.mark.parametrize('use_mask', [False, True])
def test_golden_bevformer_loss(golden, use_mask):
    case = golden.case('bevformer_loss')
    published = {
        **golden.case('bevformer_head').config['constructor'],
        **case.config['constructor'],
    }
    assert published['loss_occ'] == dict(
        type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0
    )
    config = head_config(published)
    config.update(use_mask=use_mask)
    config.pop('type')
    head = BEVFormerOccHead(**config)
    logits = case.input('logits').requires_grad_()
    samples = []
    for labels, mask in zip(case.input('gt'), case.input('mask_camera')):
        samples.append(OccDataSample())
        samples[-1].gt_occ = OccData(semantics=labels, mask_camera=mask.bool())
    loss = head.loss(logits, samples)['loss_occ']
    loss.backward()
    suffix = 'masked' if use_mask else 'unmasked'
    golden.compare(case, f'loss_{suffix}', loss)
    golden.compare(case, f'grad_{suffix}', logits.grad)


def samples_of(case, step):
    """What a stream knows of frame ``step``."""
    sample = OccDataSample(
        metainfo=dict(
            scene_token=str(int(case.input('scene')[step])),
            timestamp=float(step),
            token=str(step),
            prev=str(step - 1),
        )
    )
    return [sample]


def test_golden_bevformer_stream(golden):
    case = golden.case('bevformer_stream')
    model = build_detector(golden, case)
    stream = SceneStream()
    for step in range(case.config['steps']):
        frame = frame_of(case, case.input(f'img{step}'), step)
        samples = samples_of(case, step)
        history = stream.recall(samples)
        golden.compare(case, f'can_bus_relative{step}', seen_from(frame, history)[0][0])
        bev = model.encode(frame, history)
        stream.remember(samples, frame, bev)
        logits = model.pts_bbox_head(bev)
        golden.compare(case, f'bev{step}', as_map(bev, model.pts_bbox_head.bev_shape))
        golden.compare(case, f'logits{step}', logits)
        golden.compare(case, f'classes{step}', logits.argmax(-1).byte())


def test_golden_bevformer_queue_and_loss(golden):
    case = golden.case('bevformer_queue')
    model = build_detector(golden, case)
    scenes = case.input('scene').tolist()
    *past, current = [
        frame_of(case, images, step)
        for step, images in enumerate(case.input('imgs').transpose(0, 1))
    ]
    # Frames of another scene do not exist for ours.
    past = [f for f, scene in zip(past, scenes) if scene == scenes[-1]]
    history = model.encode_queue(past, batch_size=len(current.rows))
    golden.compare(case, 'history_bev', history.bev)
    exists, relative = [], []
    for step, frame in enumerate([*past, current]):
        before = model.encode_queue(past[:step], 1) if step else None
        vectors, previous = seen_from(frame, before)
        relative.append(vectors[0])
        exists.append(previous is not None)
    dropped = len(scenes) - len(exists)
    absolute = case.input('can_bus_absolute').numpy()[:dropped]
    none = [seen_from(frame_without_images(v), None)[0][0] for v in absolute]
    golden.compare(case, 'can_bus_relative', np.stack([*none, *relative]))
    golden.compare(case, 'prev_bev_exists', np.array([False] * dropped + exists))
    bev = model.encode(current, history)
    logits = model.pts_bbox_head(bev)
    golden.compare(case, 'logits', logits)
    sample = OccDataSample()
    sample.gt_occ = OccData(semantics=case.input('gt')[0])
    golden.compare(case, 'loss_occ', model.pts_bbox_head.loss(logits, [sample])['loss_occ'])


def frame_without_images(vector):
    return Frame(None, None, vector[None], np.eye(4)[None], np.arange(1))
