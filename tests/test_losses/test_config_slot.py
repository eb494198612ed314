"""Every distillation loss trains a student from the same config slot."""

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

from radocc_plugin.losses import DistillBatch, LogitsKD
from radocc_plugin.registry import MODELS
from radocc_plugin.structures import OccData, OccDataSample

SHAPE, CLASSES = (10, 10, 4), 4


@MODELS.register_module(force=True)
class VolumeStudent(BaseModel):
    """Its logits are its parameters."""

    def __init__(self):
        super().__init__()
        self.volume = nn.Parameter(torch.randn(1, *SHAPE, CLASSES))
        self.head = nn.Identity()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        logits = self.head(self.volume)
        return logits if mode == 'tensor' else dict(loss_occ=logits.sum() * 0)


def make_sample(**fields):
    generator = torch.Generator().manual_seed(0)
    sample = OccDataSample(
        metainfo=dict(
            cam2img=np.array([[[20.0, 0, 16], [0, 20, 9], [0, 0, 1]]]),
            cam2ego=np.array([[[0.0, 0, 1, 0], [-1, 0, 0, 0.05], [0, -1, 0, 0.7], [0, 0, 0, 1]]]),
            ori_shape=(18, 32),
        )
    )
    sample.gt_occ = OccData(
        semantics=torch.randint(0, CLASSES, SHAPE, generator=generator),
        mask_camera=torch.rand(SHAPE, generator=generator) < 0.5,
    )
    sample.segments = torch.randint(0, 4, (1, 6, 10), generator=generator, dtype=torch.int32)
    return sample


def distiller(**losses):
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='radocc_plugin.RadOccDistiller',
            student=dict(type='radocc_plugin.VolumeStudent'),
            student_tap=dict(module='head'),
            teacher=dict(model=dict(type='radocc_plugin.VolumeStudent'), tap=dict(module='head')),
            renderer=dict(
                type='radocc_plugin.VolumeRenderer',
                point_cloud_range=(-4, -4, -1, 4, 4, 2.2),
                render_size=(6, 10),
                max_rays=50,
            ),
            losses=losses,
        )
    )


@pytest.mark.parametrize(
    'loss',
    [
        dict(type='RenderedDepthConsistency'),
        dict(type='RenderedDepthDoubleSoftmax'),
        dict(type='RenderedSemanticConsistency'),
        dict(type='RenderedSemanticConsistency', affinity='pixels'),
        dict(type='RenderedSemanticConsistency', affinity_weight=0.0),
        dict(type='RenderedSemanticConsistency', kl_weight=0.0),
        dict(type='RenderedSemanticElementwiseKL'),
        dict(type='RenderedDepthMapAlignment'),
        dict(type='RenderedDepthMapAlignment', distance='silog'),
        dict(type='RenderedCrossEntropy'),
        dict(type='LogitsKD'),
        dict(type='LogitsKDOverX'),
        dict(type='ChannelWiseDistillation'),
        dict(type='AffinityAlignment', compares='occ_logits', free_index=3),
    ],
)
def test_every_loss_trains_in_the_same_config_slot(loss):
    loss = dict(loss, type=f'radocc_plugin.{loss["type"]}')
    model = distiller(own=loss)
    samples = [make_sample()]
    first = None
    optimizer = torch.optim.Adam(model.student.parameters(), 0.05)
    for _ in range(8):
        losses = model(dict(), samples, mode='loss')
        value = sum(losses.values())
        first = value.item() if first is None else first
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    value = sum(model(dict(), samples, mode='loss').values()).item()
    assert set(losses) > {'loss_occ'} and value < first


def test_losses_on_volumes_alone_render_nothing(monkeypatch):
    model = distiller(
        kd=dict(type='radocc_plugin.LogitsKD'),
        cwd=dict(type='radocc_plugin.ChannelWiseDistillation'),
    )
    monkeypatch.setattr(model.renderer, 'trace', None)
    sample = make_sample()
    del sample.segments
    losses = model(dict(), [sample], mode='loss')
    assert set(losses) == {'loss_occ', 'loss_logits_kd', 'loss_cwd'}


def test_the_same_iteration_draws_the_same_pairs():
    losses = dict(
        own=dict(type='radocc_plugin.RenderedSemanticConsistency', affinity='pixels', max_pairs=3)
    )
    model = distiller(**losses)
    values = [model(dict(), [make_sample()], mode='loss')['loss_rsc_affinity'] for _ in range(2)]
    assert torch.equal(*values)


def test_a_batch_holds_what_a_loss_needs_and_all_samples_have():
    full, bare = make_sample(), make_sample()
    del bare.gt_occ.mask_camera
    losses = [LogitsKD()]
    batch = DistillBatch.from_data_samples([full, full], losses, 'cpu')
    assert batch.mask_camera.shape == (2, *SHAPE)
    assert batch.gt_occ is None and batch.segments is None
    for samples in ([full, bare], [full, OccDataSample()]):
        batch = DistillBatch.from_data_samples(samples, losses, 'cpu')
        assert batch.mask_camera is None
        with pytest.raises(ValueError, match='LogitsKD needs mask_camera'):
            batch.check(losses[0])
