"""A student of mmdet3d: ImVoxelNet, which nobody here wrote.

Its head makes a volume of class scores at every level of its 3D neck; the
tap takes those of the finest, the first call.
"""

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.structures import InstanceData
from torch import nn

from radocc_plugin.registry import MODELS

pytest.importorskip('mmdet3d.models')
from mmdet3d.structures import Det3DDataSample  # noqa: E402
from mmdet3d.structures import LiDARInstance3DBoxes  # noqa: E402
from mmdet3d.utils import register_all_modules  # noqa: E402

CLASSES, GRID = 4, (16, 16, 8)
RANGE = [-3.2, -3.2, -1.6, 3.2, 3.2, 1.6]
PRIOR = dict(type='mmdet3d.AlignedAnchor3DRangeGenerator', ranges=[RANGE], rotations=[0.0])
IMVOXELNET = dict(
    type='mmdet3d.ImVoxelNet',
    data_preprocessor=dict(
        type='mmdet3d.Det3DDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, pad_size_divisor=32
    ),
    backbone=dict(type='mmdet.ResNet', depth=18, base_channels=8, out_indices=(0, 1)),
    neck=dict(type='mmdet.FPN', in_channels=[8, 16], out_channels=8, num_outs=2),
    neck_3d=dict(type='mmdet3d.IndoorImVoxelNeck', in_channels=8, out_channels=8, n_blocks=[1, 1]),
    bbox_head=dict(
        type='mmdet3d.ImVoxelHead',
        n_classes=CLASSES,
        n_levels=2,
        n_channels=8,
        n_reg_outs=7,
        pts_assign_threshold=27,
        pts_center_threshold=18,
        prior_generator=PRIOR,
        # the default, FocalLoss, takes no background on a CPU
        cls_loss=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True),
    ),
    prior_generator=PRIOR,
    n_voxels=list(GRID),
    coord_type='DEPTH',
)


@MODELS.register_module(force=True)
class RoomTeacher(BaseModel):
    """Knows a floor of class 1 and a wall of class 2; the rest is free."""

    occ_tap = dict(module='head')

    def __init__(self):
        super().__init__()
        self.head = nn.Identity()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        labels = torch.full(GRID, CLASSES - 1)
        labels[:, :, :2], labels[12:] = 1, 2
        logits = 6.0 * nn.functional.one_hot(labels, CLASSES)
        return self.head(logits.expand(len(data_samples), *logits.shape))


def room_batch():
    """What a pipeline of mmdet3d packs; 64 x 64 pixels, camera at -x."""
    cam2img = np.array([[50.0, 0, 32], [0, 50, 32], [0, 0, 1]])
    cam2ego = np.array([[0.0, 0, 1, -3], [-1, 0, 0, 0], [0, -1, 0, 0.3], [0, 0, 0, 1]])
    projection = np.eye(4)
    projection[:3, :3] = cam2img
    samples, images = [], []
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        sample = Det3DDataSample(
            metainfo=dict(
                depth2img=projection @ np.linalg.inv(cam2ego),
                img_shape=(64, 64),
                cam2img=cam2img[None],
                cam2ego=cam2ego[None],
                ori_shape=(64, 64),
            )
        )
        sample.gt_instances_3d = InstanceData(
            # outside of the volume: the loss of boxes inside needs a GPU
            bboxes_3d=LiDARInstance3DBoxes(torch.tensor([[50.0, 50.0, 0.0, 1.0, 1.0, 1.0, 0.0]])),
            labels_3d=torch.tensor([1]),
        )
        samples.append(sample)
        images.append(torch.randint(0, 256, (3, 64, 64), generator=generator).float())
    return dict(inputs=dict(img=images), data_samples=samples)


def test_imvoxelnet_is_distilled_with_three_lines_of_config():
    register_all_modules(init_default_scope=False)
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='radocc_plugin.RadOccDistiller',
            student=IMVOXELNET,
            # These three lines are all that the student needs.
            student_tap=dict(module='bbox_head.conv_cls', layout='b c x y z', call_index=0),
            student_features=dict(voxel=dict(module='neck_3d', layout='b c x y z', output_index=0)),
            teacher_features=dict(voxel=dict(module='head')),
            teacher=dict(model=dict(type='radocc_plugin.RoomTeacher')),
            renderer=dict(
                type='radocc_plugin.VolumeRenderer',
                point_cloud_range=RANGE,
                render_size=(16, 16),
                max_rays=None,
            ),
            losses=dict(
                depth=dict(type='radocc_plugin.RenderedDepthConsistency', loss_weight=3.0),
                semantics=dict(
                    type='radocc_plugin.RenderedSemanticConsistency', affinity_weight=0.0
                ),
                feature=dict(
                    type='radocc_plugin.FeatureAlignment',
                    student_channels=8,
                    teacher_channels=CLASSES,
                    loss_weight=0.1,
                ),
            ),
        )
    )
    model.init_weights()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    history = [model.train_step(room_batch(), OptimWrapper(optimizer)) for _ in range(12)]
    assert {'center_loss', 'bbox_loss', 'cls_loss'} < history[0].keys()
    for name in ('loss_rdc', 'loss_rsc_kl', 'loss_feature'):
        assert history[-1][name] < 0.95 * history[0][name]
    plain = MODELS.build(IMVOXELNET)
    keys = {k for k in model.state_dict() if not k.startswith('distill.')}
    assert keys == plain.state_dict().keys()
