"""Which voxels a head's loss counts."""

import pytest
import torch

from radocc_plugin.models.bevdet.occ_head import BEVOCCHead2D
from radocc_plugin.models.fbocc.occ_head import FBOccHead
from radocc_plugin.structures import OccData, OccDataSample, stack_mask

SHAPE = (6, 6, 4)


@pytest.fixture
def samples():
    torch.manual_seed(0)
    made = []
    for token in 'ab':
        sample = OccDataSample(metainfo=dict(token=token))
        sample.gt_occ = OccData(
            semantics=torch.randint(0, 18, SHAPE, dtype=torch.uint8),
            mask_camera=torch.rand(SHAPE) < 0.5,
            mask_lidar=torch.rand(SHAPE) < 0.5,
        )
        made.append(sample)
    return made


def stacked(samples, name):
    return torch.stack([sample.gt_occ.get(name) for sample in samples])


@pytest.mark.parametrize(
    'use_mask,want',
    [
        (False, lambda camera, lidar: None),
        (True, lambda camera, lidar: camera),
        ('camera', lambda camera, lidar: camera),
        ('lidar', lambda camera, lidar: lidar),
        ('both', lambda camera, lidar: camera & lidar),
    ],
)
def test_masks_are_those_of_the_labels(samples, use_mask, want):
    got = stack_mask(samples, use_mask)
    want = want(stacked(samples, 'mask_camera'), stacked(samples, 'mask_lidar'))
    assert (got is None) if want is None else torch.equal(got, want)


def bevdet(use_mask):
    return BEVOCCHead2D(in_dim=2, out_dim=2, Dz=4, use_mask=use_mask, class_balance=False)


def fbocc(use_mask):
    return FBOccHead(in_channels=2, channels=2, hidden_channels=2, use_mask=use_mask)


@pytest.mark.parametrize('use_mask', ['lidar', 'both', False])
@pytest.mark.parametrize('head,layout', [(bevdet, None), (fbocc, (0, 4, 2, 1, 3))])
def test_a_head_counts_the_voxels_of_its_mask(samples, head, layout, use_mask):
    """The same as a camera mask of just these voxels."""
    classes = 18 + (layout is not None)
    logits = torch.randn(2, *SHAPE, classes)
    # ours is B X Y Z C, FB-OCC's B C Y X Z
    logits = logits if layout is None else logits.permute(0, 4, 2, 1, 3)
    losses = head(use_mask).loss(logits, samples)
    mask = stack_mask(samples, use_mask)
    for n, sample in enumerate(samples):
        sample.gt_occ.mask_camera = torch.ones(SHAPE).bool() if mask is None else mask[n]
    for name, loss in head(True).loss(logits, samples).items():
        torch.testing.assert_close(losses[name], loss)


def test_labels_without_the_mask_and_unknown_masks_are_named(samples):
    del samples[1].gt_occ.mask_lidar
    with pytest.raises(ValueError, match="use_mask='both' needs gt_occ.mask_lidar, .* sample b"):
        stack_mask(samples, 'both')
    for head in (bevdet, fbocc):
        with pytest.raises(ValueError, match=r"Head.*use_mask takes True .* got 'radar'"):
            head('radar')
