"""Initialisations and recomputed activations, as the published trees."""

import math

import pytest
import torch
from torch import nn

from radocc_plugin.models.bevdet import CustomFPN, CustomResNet3D
from radocc_plugin.models.bevformer import TransformerOcc
from radocc_plugin.models.fbocc.backward_projection import BackwardProjection
from radocc_plugin.models.fbocc.bev_encoder import FPN3D, ResNet3D
from radocc_plugin.models.lift_splat import DepthBins
from radocc_plugin.models.lift_splat.depth_net import DepthNet
from radocc_plugin.geometry import VoxelGrid
from tests.support.models import build_model

TINY = 'projects/BEVFormerOcc/configs/bevformer-occ_tiny_1xb1-3e_synthetic.py'


def fans(weight):
    """Inputs and outputs that a weight connects."""
    area = weight[0, 0].numel()
    return weight.shape[1] * area, weight.shape[0] * area


def xavier(weight):
    return math.sqrt(2 / sum(fans(weight)))


def kaiming_in(weight):
    return math.sqrt(2 / fans(weight)[0])


def kaiming_out(weight):
    return math.sqrt(2 / fans(weight)[1])


def weights_of(module, kind):
    return [(name, m.weight) for name, m in module.named_modules() if isinstance(m, kind)]


def assert_spread(weights, spread):
    """Standard deviations, within five times their own noise."""
    assert weights
    for name, weight in weights:
        found = weight.detach().std().item() / spread(weight)
        assert abs(found - 1) < 5 / math.sqrt(weight.numel()), name


def test_initialisations_of_the_bevdet_family():
    torch.manual_seed(0)
    fpn = CustomFPN([64, 128], 32)
    fpn.init_weights()
    assert_spread(weights_of(fpn, nn.Conv2d), xavier)
    aspp = DepthNet(8, 64, 4, 10, aspp_mid_channels=24).depth_conv[3]
    assert_spread(weights_of(aspp, nn.Conv2d), kaiming_in)


def test_initialisations_of_fbocc():
    torch.manual_seed(0)
    encoder = ResNet3D(16, (16, 32, 32))
    encoder.init_weights()
    assert_spread(weights_of(encoder, nn.Conv3d), kaiming_out)
    projection = BackwardProjection(
        VoxelGrid((-4, -4, -1, 4, 4, 5.4), (10, 10, 4)),
        DepthBins(1, 9, 1),
        embed_dims=32,
        num_heads=4,
    )
    projection.init_weights()
    (layer,) = projection.layers
    learned, fixed = [], []
    for name, weight in weights_of(layer, nn.Linear):
        cross = name.startswith('attentions.1.deformable')
        own = cross and not name.endswith('value_proj')
        (fixed if own else learned).append((name, weight))
    assert len(fixed) == 2 and len(learned) == 4 + 2 + 2
    assert_spread(learned, xavier)
    assert not any(weight.any() for _, weight in fixed)
    for attention in (layer.attentions[0], layer.attentions[1].deformable_attention):
        # on a circle
        offsets = attention.sampling_offsets.bias.view(4, -1, 2)
        assert offsets.abs().amax(-1)[0].tolist() == list(range(1, 1 + offsets.shape[1]))
    assert_spread([('row', projection.positional_encoding.row_embed.weight)], lambda weight: 1.0)


def test_initialisations_of_bevformer():
    model = build_model(TINY)
    model.init_weights()
    head = model.pts_bbox_head
    transformer: TransformerOcc = head.transformer
    layer = transformer.encoder.layers[0]
    parts = [layer.ffns, transformer.predicter, transformer.decoder, transformer.can_bus_mlp]
    for part in parts:
        assert_spread(weights_of(part, (nn.Linear, nn.Conv3d)), xavier)
    for attention in (layer.attentions[0], layer.attentions[1].deformable_attention):
        assert not attention.sampling_offsets.weight.any()
        assert not attention.attention_weights.weight.any()
    assert transformer.can_bus_mlp[0].bias.any()
    embeddings = [
        ('row', head.positional_encoding.row_embed.weight),
        ('bev', head.bev_embedding.weight),
        ('level', transformer.level_embeds),
        ('cams', transformer.cams_embeds),
    ]
    assert_spread(embeddings, lambda weight: 1.0)


DEPTH_NET = dict(
    in_channels=4, mid_channels=6, context_channels=3, depth_channels=5, aspp_mid_channels=4
)


@pytest.mark.parametrize(
    'build, shape',
    [
        (lambda cp: CustomResNet3D(4, (1, 1), (4, 6), (1, 2), with_cp=cp), [(4, 4, 6, 6)]),
        (lambda cp: CustomFPN([4, 6], 5, with_cp=cp), [(4, 6, 6), (6, 3, 3)]),
        (lambda cp: ResNet3D(4, (4, 6), (1, 2), (1, 1), with_cp=cp), [(4, 6, 6, 4)]),
        (lambda cp: FPN3D((4, 6), 5, with_cp=cp), [(4, 4, 6, 6), (6, 2, 3, 3)]),
        (lambda cp: DepthNet(**DEPTH_NET, with_cp=cp), [(4, 6, 8), (1, 27)]),
    ],
    ids=['encoder', 'neck', 'fbocc encoder', 'fbocc pyramid', 'depth net'],
)
def test_recomputed_activations_change_no_number(build, shape):
    results = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = build(with_cp)
        inputs = [torch.randn(2, *s, requires_grad=True) for s in shape]
        args = inputs
        if isinstance(model, DepthNet):
            args = inputs[0], inputs[1]
        elif not isinstance(model, (CustomResNet3D, ResNet3D)):
            args = [inputs]
        torch.manual_seed(1)  # dropout
        out = model(*args)
        outs = out if isinstance(out, (list, tuple)) else [out]
        sum((o * o).sum() for o in outs).backward()
        results.append(
            [
                *(o.detach() for o in outs),
                *(x.grad for x in inputs),
                *(p.grad for p in model.parameters()),
            ]
        )
    for kept, recomputed in zip(*results):
        torch.testing.assert_close(recomputed, kept)
