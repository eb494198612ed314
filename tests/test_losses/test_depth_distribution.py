"""The teacher's rendered depth as the target of a depth net."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from radocc_plugin.geometry import Cameras, DepthBins, VoxelGrid, input_cameras, traverse
from radocc_plugin.losses import (
    DepthDistributionConsistency,
    DistillBatch,
    ModelOutputs,
    TeacherView,
    binned_termination,
    depth_distribution_kl,
)
from radocc_plugin.rendering import VolumeRenderer
from tests.support.models import build_model, make_batch

RANGE, SHAPE = (0.0, -8.0, -1.0, 16.0, 8.0, 3.0), (40, 40, 10)
DEPTH = (1.0, 15.0, 0.5)


def test_light_is_counted_in_the_bin_of_the_middle_of_its_voxel():
    grid = VoxelGrid((0, 0, 0, 4, 1, 1), (4, 1, 1))
    crossings = traverse(torch.tensor([[-1.0, 0.5, 0.5]]), torch.tensor([[1.0, 0, 0]]), grid)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.15])  # middles at depths 1.5 to 4.5
    target, share = binned_termination(weights, crossings, DepthBins(2.0, 4.0, 1.0))
    assert share.item() == pytest.approx(0.5)
    assert target[0].tolist() == pytest.approx([0.4, 0.6])


def test_the_divergence_is_zero_at_the_teacher_and_weighs_rays():
    generator = torch.Generator().manual_seed(0)
    teacher = torch.rand(5, 4, generator=generator).softmax(1)
    student = torch.rand(5, 4, generator=generator).softmax(1)
    weight = torch.rand(5, generator=generator)
    expected = F.kl_div(student.log(), teacher, reduction='none').sum(1)
    torch.testing.assert_close(
        depth_distribution_kl(student, teacher, weight), (weight * expected).sum() / weight.sum()
    )
    assert depth_distribution_kl(teacher, teacher, weight).abs() < 1e-6
    sure = F.one_hot(torch.arange(4), 4).float()
    assert depth_distribution_kl(sure, sure, weight[:4]).abs() < 1e-6
    with pytest.raises(ValueError, match='teacher'):
        depth_distribution_kl(student, teacher[:, :3], weight)


def scene(flip):
    """A wall 10 m in front of a camera, to the left of which one is at 6 m;
    the input image is half as large, cut at the top, and perhaps flipped."""
    cam2ego = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1], [0, 0, 0, 1]])
    cam2img = np.array([[160.0, 0, 128], [0, 160, 96], [0, 0, 1]])
    augment = np.diag([0.5, 0.5, 1, 1])
    augment[1, 3] = -32.0
    if flip:
        augment[0, 0], augment[0, 3] = -0.5, 128
    sample = SimpleNamespace(
        metainfo=dict(
            cam2img=cam2img[None],
            cam2ego=cam2ego[None],
            ori_shape=(192, 256),
            img_aug_mat=augment[None],
        )
    )
    labels = torch.ones(1, *SHAPE).long()
    labels[:, 25:27] = 0  # x from 10 m
    labels[:, 15:17, 20:] = 0  # x from 6 m, y > 0: left
    logits = 30.0 * F.one_hot(labels, 2).float()
    renderer = VolumeRenderer(RANGE, (6, 10), backend='torch')
    raw = Cameras.from_data_samples([sample])

    def render(rays):
        return renderer(logits, renderer.geometry(rays, raw, SHAPE))

    return TeacherView(input_cameras(raw, [sample]), render)


@pytest.mark.parametrize('flip', [False, True])
def test_the_target_is_where_walls_stand_in_the_input_image(flip):
    view = scene(flip)
    loss = DepthDistributionConsistency(DEPTH, downsample=16)
    near, far = (int((depth - 1.0) / 0.5) for depth in (6.1, 10.1))
    columns = torch.tensor([near, near, near, near, far, far, far, far])  # 128 pixels wide
    index = (columns.flip(0) if flip else columns).expand(1, 1, 4, 8)
    right = F.one_hot(index, 28).float()
    wrong = F.one_hot(index.flip(-1), 28).float()

    def value(depth):
        student = ModelOutputs(torch.zeros(()), dict(depth=depth))
        return loss(student, None, DistillBatch(teacher_view=view))['loss_depth_distribution']

    assert value(right * 0.98 + 0.02 / 28) < 0.1
    assert value(wrong * 0.98 + 0.02 / 28) > 3


TAP = dict(
    module='img_view_transformer', output_index=1, layout='(b n) c h w -> b n h w c', axes=dict(n=6)
)


def distilled(depth=(1.0, 45.0, 1.0), **changes):
    model = build_model(
        'configs/radocc/radocc_bevdet-occ_tiny_1xb1-3e_synthetic.py',
        **{
            'teacher.checkpoint': None,
            'student_features': dict(depth=TAP),
            'losses': dict(
                _delete_=True,
                depth=dict(
                    type='radocc_plugin.DepthDistributionConsistency', depth=depth, downsample=16
                ),
            ),
            **changes,
        },
    )
    return model.train()


def test_a_lift_splat_student_learns_it():
    model = distilled()
    bins = model.student.img_view_transformer.depth_bins
    assert (bins.first, bins.end, bins.step) == (1.0, 45.0, 1.0)
    losses = model(*make_batch(), mode='loss')
    losses['loss_depth_distribution'].backward()
    pulled = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert any(name.startswith('img_view_transformer.depth_net') for name in pulled)
    assert not any(name.startswith(('occ_head', 'img_bev_encoder')) for name in pulled)


def test_bins_and_taps_that_do_not_fit_are_named():
    model = distilled(depth=(1.0, 45.0, 0.5))
    with pytest.raises(ValueError, match=r'DepthDistributionConsistency takes .* D = \(1, 6, 88\)'):
        model(*make_batch(), mode='loss')
    model = distilled(student_features=None)
    with pytest.raises(ValueError, match=r'feature takes the name of a tapped .* one of \[\]'):
        model(*make_batch(), mode='loss')
    inputs, samples = make_batch()
    for sample in samples:
        sample.set_metainfo(dict(token='a'))
        del sample.img_aug_mat
    model = distilled()
    logits = torch.zeros(1, 200, 200, 16, 18)
    with pytest.raises(ValueError, match="lack the metainfo 'img_aug_mat'"):
        model.consistency(ModelOutputs(logits), ModelOutputs(logits), samples)
