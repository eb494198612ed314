"""The detection head that assists a training of DAOcc."""

import copy

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from radocc_plugin.datasets.old_infos import DETECTION_CLASSES
from radocc_plugin.datasets.transforms import LoadDetectionBoxes
from radocc_plugin.models.daocc.detection import augment_boxes, detection_losses
from radocc_plugin.registry import MODELS
from tests.support.models import build_model, load_config

from .test_daocc import TINY, make_batch, turned

pytest.importorskip('mmdet3d')

DETECTION = 'projects/DAOcc/configs/daocc_r50-detection-256x704_8xb4-6e_occ3d.py'
MIRRORED = np.diag([1.0, -1, 1, 1])


def tiny_config():
    """The tiny model with the published head on its 60 x 60 cells of 0.8 m."""
    config = load_config(TINY)
    head = copy.deepcopy(load_config(DETECTION).model.detection_head)
    head.in_channels = 64
    head.train_cfg.update(
        point_cloud_range=(-24.0, -24.0, -5.0, 24.0, 24.0, 3.0),
        grid_size=(240, 240, 40),
        voxel_size=(0.2, 0.2, 0.2),
        out_size_factor=4,
    )
    config.model.detection_head = head
    return config


def boxes_of(*rows):
    """Rows of class, x, y, yaw, velocity x, velocity y."""
    rows = torch.tensor(rows, dtype=torch.float64)
    size = torch.tensor([[0.0, 4, 2, 1.5]]).double().expand(len(rows), -1)
    boxes = torch.cat([rows[:, 1:3], size, rows[:, 3:6]], 1)
    return InstanceData(bboxes_3d=boxes.float(), labels_3d=rows[:, 0].long())


@pytest.mark.parametrize('matrix', [np.eye(4), MIRRORED, turned(90), turned(30) @ MIRRORED])
def test_boxes_follow_the_frame(matrix):
    """Corners and the end of the velocity vector, moved as points."""
    box = boxes_of([0, 3.0, -5.0, 0.7, 2.0, 1.0]).bboxes_3d.double()

    def outline(box):
        forward = torch.stack([box[0, 6].cos(), box[0, 6].sin()])
        left = torch.stack([-forward[1], forward[0]])
        along, across = forward * box[0, 3] / 2, left * box[0, 4] / 2
        corners = [box[0, :2] + a * along + b * across for a in (-1, 1) for b in (-1, 1)]
        return torch.stack(corners), box[0, :2] + box[0, 7:9], box[0, :2] + along

    moved = augment_boxes(box, torch.from_numpy(matrix))
    turn = torch.from_numpy(matrix[:2, :2])
    before, after = outline(box), outline(moved)
    expected = before[0] @ turn.T
    distance = torch.cdist(after[0], expected)
    assert distance.min(0).values.max() < 1e-9 and distance.min(1).values.max() < 1e-9
    assert torch.allclose(after[1], turn @ before[1]) and torch.allclose(after[2], turn @ before[2])


def test_a_map_that_shows_the_boxes_has_the_smallest_loss():
    """Heatmaps of a class are read at (x, y) of the map, not at (y, x), in
    the order of the classes that the infos count in."""
    head = MODELS.build(tiny_config().model.detection_head)
    _, samples = make_batch()
    truck, cone = map(DETECTION_CLASSES.index, ('truck', 'traffic_cone'))
    samples[0].gt_instances_3d = boxes_of([truck, 10.2, -4.3, 0, 0, 0], [cone, -7.0, 15.0, 0, 0, 0])

    class Shown(torch.nn.Module):
        """A head that shows what is marked in its map."""

        class_names = head.class_names
        loss_by_feat = head.loss_by_feat

        def forward(self, feats):
            (bev,) = feats  # (B, 2, Y, X)
            tasks = []
            for n, names in enumerate(head.class_names):
                shape = (1, len(names), *bev.shape[2:])
                level = dict(heatmap=torch.full(shape, -8.0))
                for name, channel in (('truck', 0), ('traffic_cone', 1)):
                    if name in names:
                        level['heatmap'][0, names.index(name)] += 16 * bev[0, channel]
                for key, channels in (
                    ('reg', 2),
                    ('height', 1),
                    ('dim', 3),
                    ('rot', 2),
                    ('vel', 2),
                ):
                    level[key] = torch.zeros(1, channels, *bev.shape[2:])
                tasks.append([level])
            return tuple(tasks)

    def heatmap_loss(swap, mirrored=False):
        bev = torch.zeros(1, 2, 60, 60)
        for channel, (x, y) in enumerate([(10.2, -4.3), (-7.0, 15.0)]):
            y = -y if mirrored else y
            cell = int((x + 24) / 0.8), int((y + 24) / 0.8)
            bev[0, channel][cell[::-1] if swap else cell] = 1
        matrix = torch.from_numpy(MIRRORED if mirrored else np.eye(4))[None]
        losses = detection_losses(Shown(), bev, samples, matrix)
        return float(sum(v for k, v in losses.items() if 'heatmap' in k))

    assert heatmap_loss(False) < 0.1 * heatmap_loss(True)
    assert heatmap_loss(False, mirrored=True) == pytest.approx(heatmap_loss(False), rel=1e-5)


def test_it_assists_the_training_only():
    config = tiny_config()
    torch.manual_seed(0)
    model = MODELS.build(config.model).train()
    inputs, samples = make_batch(bda_mat=MIRRORED)
    samples[0].gt_instances_3d = boxes_of([0, 5.0, 5.0, 0.3, 1.0, 0.0])
    losses = model(inputs, samples, mode='loss')
    plain = {name: value for name, value in losses.items() if not name.startswith('task')}
    assert list(plain) == ['loss_occ'] and len(losses) == 13
    sum(v for k, v in losses.items() if k.startswith('task')).backward()
    assert model.fuser[0].weight.grad.abs().sum() > 0
    # Its weights fit a model without it, and those of such a model do not fit.
    without = build_model(TINY)
    assert without.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(
            without.eval()(inputs, samples, mode='tensor'),
            model.eval()(inputs, samples, mode='tensor'),
        )
    with pytest.raises(RuntimeError, match='detection_head'):
        model.load_state_dict(without.state_dict())


def test_no_boxes_in_the_sample_and_in_the_infos_are_named():
    model = MODELS.build(tiny_config().model)
    inputs, samples = make_batch()
    with pytest.raises(ValueError, match='LoadDetectionBoxes'):
        model(inputs, samples, mode='loss')
    with pytest.raises(ValueError, match='instances'):
        LoadDetectionBoxes()(dict(token='a'))
    samples[0].gt_instances_3d = boxes_of([0, 500.0, 5.0, 0, 0, 0])[:0]
    losses = model(inputs, samples, mode='loss')
    assert all(torch.isfinite(value).all() for value in losses.values())


def test_boxes_of_the_infos_are_those_of_the_detection_classes():
    def instance(label, valid, velocity):
        return dict(
            bbox_3d=[1, 2, 3, 4, 2, 1.5, 0.1],
            bbox_label_3d=label,
            bbox_3d_isvalid=valid,
            velocity=velocity,
        )

    results = dict(
        instances=[
            instance(2, True, [np.nan, np.nan]),
            instance(-1, True, [0, 0]),
            instance(1, False, [0, 0]),
            instance(7, True, [1, -1]),
        ]
    )
    loaded = LoadDetectionBoxes()(results)['gt_instances_3d']
    assert loaded['labels_3d'].tolist() == [2, 7]
    np.testing.assert_allclose(loaded['bboxes_3d'][:, 6:], [[0.1, 0, 0], [0.1, 1, -1]], rtol=1e-6)


def test_the_shipped_config_is_the_published_training():
    config = load_config(DETECTION)
    head = MODELS.build(config.model.detection_head)
    assert sum(p.numel() for p in head.parameters()) == 1_667_142
    names = [step['type'] for step in config.train_dataloader.dataset.dataset.pipeline]
    assert 'radocc_plugin.LoadDetectionBoxes' in names and names[-1].endswith('PackOccInputs')
    assert config.model.detection_weight == 0.01
