"""3D convolutions, encoder and head."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from radocc_plugin.models.bevdet import LSSFPN3D, BEVOCCHead3D, CustomFPN, CustomResNet3D
from radocc_plugin.models.lift_splat import Conv3d
from radocc_plugin.models.lift_splat.conv3d import NAIVE_KERNEL_LIMIT


@pytest.mark.parametrize('stride, padding', [(1, 1), (2, 1), ((1, 2, 3), 0)])
def test_conv3d_has_the_values_and_keys_of_torch(stride, padding):
    torch.manual_seed(0)
    ours = Conv3d(4, 6, 3, stride, padding).double()
    theirs = nn.Conv3d(4, 6, 3, stride, padding).double()
    theirs.load_state_dict(ours.state_dict())
    for limit_reached, shape in [(False, (1, 4, 5, 7, 9)), (True, (1, 4, 8, 800, 9))]:
        volume = torch.randn(*shape, dtype=torch.float64)
        assert (volume[..., 0].numel() > NAIVE_KERNEL_LIMIT) == limit_reached
        torch.testing.assert_close(ours(volume), theirs(volume))


def test_neck_mixes_the_upsampled_concatenation():
    torch.manual_seed(0)
    neck = LSSFPN3D(3 + 5, 4).eval()
    levels = [torch.randn(1, 3, 4, 6, 8), torch.randn(1, 5, 2, 3, 4)]
    upsampled = F.interpolate(levels[1], scale_factor=2, mode='trilinear', align_corners=True)
    torch.testing.assert_close(neck(levels), neck.conv(torch.cat([levels[0], upsampled], 1)))


def test_a_stage_without_blocks_passes_its_input_on():
    encoder = CustomResNet3D(4, (0, 1), (4, 8), (1, 2))
    volume = torch.randn(1, 4, 4, 6, 8)
    first, second = encoder(volume)
    assert first is volume and second.shape == (1, 8, 2, 3, 4)


def test_expanded_cells_lie_where_the_coarse_cell_was():
    torch.manual_seed(0)
    head = BEVOCCHead3D(in_dim=4, out_dim=4, upsample=2)
    coarse = BEVOCCHead3D(in_dim=4, out_dim=4, num_classes=18 * 8)
    coarse.load_state_dict(head.state_dict())
    volume = torch.randn(2, 4, 3, 5, 6)  # Z, Y, X
    fine, cells = head(volume), coarse(volume)
    assert fine.shape == (2, 12, 10, 6, 18)
    for offset in range(8):
        x, y, z = offset >> 2 & 1, offset >> 1 & 1, offset & 1
        torch.testing.assert_close(
            fine[:, x::2, y::2, z::2], cells[..., 18 * offset : 18 * (offset + 1)]
        )


def test_wrong_levels_are_named():
    with pytest.raises(ValueError, match='out_indices'):
        CustomFPN([8, 16], 4)([torch.randn(1, 8, 4, 4)])
    with pytest.raises(ValueError, match='one entry per stage'):
        CustomResNet3D(4, (1, 1), (4,), (1, 2))
