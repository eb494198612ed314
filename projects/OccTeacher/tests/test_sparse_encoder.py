"""Sparse convolution and encoder against dense ones and naive loops."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from radocc_plugin.models.occ_teacher import (
    OccSparseEncoder,
    SparseVoxelMean,
    VoxelMean,
    sparse_encoder,
)
from radocc_plugin.models.occ_teacher.sparse_conv import ActiveCells, SparseVolume, convolve
from tests.support.models import make_batch

RANGE = (-4, -4, -1, 4, 4, 1)
CHANNELS = ((4, 4, 8), (8, 8, 8), (8,))


def make_volume(shape=(5, 6, 7), batch_size=2, channels=3, share=0.15, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    number = batch_size * shape[0] * shape[1] * shape[2]
    chosen = torch.rand(number, generator=generator) < share
    keys = chosen.nonzero().squeeze(1)
    features = torch.randn(len(keys), channels, generator=generator, dtype=dtype)
    return SparseVolume(features, ActiveCells(keys, shape, batch_size))


def naive(volume, weight, kernel_size, stride, padding, submanifold):
    """Feature of each active output cell, by loops over cells and kernel."""
    inputs = {
        tuple(cell): feature
        for cell, feature in zip(volume.active.cells().tolist(), volume.features)
    }
    shape = volume.active.shape
    out_shape = (
        shape
        if submanifold
        else [(shape[a] + 2 * padding[a] - kernel_size[a]) // stride[a] + 1 for a in range(3)]
    )
    outputs = {}
    for batch in range(volume.active.batch_size):
        for cell in itertools.product(*map(range, out_shape)):
            if submanifold and (batch, *cell) not in inputs:
                continue
            for row, k in enumerate(itertools.product(*map(range, kernel_size))):
                read = tuple(cell[a] * stride[a] - padding[a] + k[a] for a in range(3))
                if (batch, *read) in inputs:
                    term = inputs[(batch, *read)] @ weight[row]
                    key = (batch, *cell)
                    outputs[key] = outputs.get(key, 0) + term
    return outputs


@pytest.mark.parametrize(
    'kernel_size, stride, padding, submanifold',
    [
        ((3, 3, 3), (1, 1, 1), (1, 1, 1), True),
        ((1, 1, 1), (1, 1, 1), (0, 0, 0), True),
        ((3, 1, 3), (1, 1, 1), (1, 0, 1), True),
        ((3, 3, 3), (2, 2, 2), (1, 1, 1), False),
        ((3, 3, 3), (2, 2, 2), (0, 1, 1), False),
        ((3, 1, 1), (2, 1, 1), (0, 0, 0), False),
        ((2, 2, 2), (1, 2, 2), (0, 0, 1), False),
    ],
)
def test_convolutions_equal_naive_loops(kernel_size, stride, padding, submanifold):
    volume = make_volume()
    cells = kernel_size[0] * kernel_size[1] * kernel_size[2]
    weight = torch.randn(cells, 3, 4, dtype=torch.float64)
    if submanifold:
        active = volume.active
        pairs = active.submanifold(kernel_size)
    else:
        active, pairs = volume.active.strided(kernel_size, stride, padding)
    out = convolve(volume.features, weight, pairs, len(active.keys))
    expected = naive(volume, weight, kernel_size, stride, padding, submanifold)
    assert [tuple(c) for c in active.cells().tolist()] == sorted(expected)
    torch.testing.assert_close(out, torch.stack([expected[key] for key in sorted(expected)]))


@pytest.mark.parametrize('stride', [1, 2])
def test_convolutions_equal_dense_ones_at_active_cells(stride):
    volume = make_volume((6, 9, 8), share=0.05)
    weight = torch.randn(27, 3, 4, dtype=torch.float64)
    dense = F.conv3d(
        volume.dense(), weight.view(3, 3, 3, 3, 4).permute(4, 3, 0, 1, 2), stride=stride, padding=1
    )
    active, pairs = volume.active.strided((3,) * 3, (stride,) * 3, (1,) * 3)
    out = convolve(volume.features, weight, pairs, len(active.keys))
    # an inactive cell reads nothing, so the volumes agree everywhere
    torch.testing.assert_close(SparseVolume(out, active).dense(), dense)


def test_convolution_has_exact_gradients():
    volume = make_volume((3, 4, 4), channels=2, share=0.3)
    weight = torch.randn(27, 2, 3, dtype=torch.float64, requires_grad=True)
    features = volume.features.requires_grad_()
    active, pairs = volume.active.strided((3,) * 3, (2,) * 3, (1,) * 3)

    def run(features, weight):
        out = convolve(features, weight, pairs, len(active.keys))
        return SparseVolume(out, active).dense()

    assert torch.autograd.gradcheck(run, (features, weight))


def test_dense_and_sparse_voxels_are_the_same():
    points = make_batch(2)[0]['points']
    sparse = SparseVoxelMean(RANGE, 0.5)(points)
    assert torch.equal(sparse.dense(), VoxelMean(RANGE, 0.5)(points))
    assert sparse.active.shape == (4, 16, 16)


def dense_twin(encoder, volume):
    """The encoder by masked dense convolutions, independent of its pairs."""
    x = volume.dense()
    mask = volume._replace(features=torch.ones_like(volume.features[:, :1])).dense()

    def conv(layer, x, mask):
        weight = (
            layer.weight
            if not sparse_encoder.has_spconv()
            else (layer.weight.permute(1, 2, 3, 4, 0))
        )
        x = F.conv3d(x, weight.permute(4, 3, 0, 1, 2), stride=tuple(layer.stride), padding=1)
        if not layer.subm:
            mask = F.max_pool3d(mask, 3, tuple(layer.stride), 1)
        return x * mask, mask

    def norm(layer, x, mask):
        """Batch norm over the active cells alone."""
        cells = mask[:, 0] > 0
        rows = layer(x.movedim(1, -1)[cells])
        out = torch.zeros_like(x).movedim(1, -1)
        out = out.index_put((cells,), rows)
        return out.movedim(-1, 1)

    def sequence(layers, x, mask):
        x, mask = conv(layers[0], x, mask)
        return norm(layers[1], x, mask).relu(), mask

    x, mask = sequence(encoder.conv_input, x, mask)
    for stage in encoder.encoder_layers.children():
        for block in stage.children():
            if not hasattr(block, 'conv1'):
                x, mask = sequence(block, x, mask)
                continue
            out, _ = conv(block.conv1, x, mask)
            out = norm(block.bn1, out, mask).relu()
            out, _ = conv(block.conv2, out, mask)
            x = (norm(block.bn2, out, mask) + x).relu()
    linear, bn, _ = encoder.conv_out
    x = torch.einsum('bczyx,dc->bdzyx', x, linear.weight)
    return norm(bn, x, mask).relu()


def make_encoder(**kwargs):
    torch.manual_seed(0)
    encoder = OccSparseEncoder(3, 5, CHANNELS, base_channels=4, backend='torch', **kwargs)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return encoder


@pytest.mark.parametrize('training', [False, True])
def test_sparse_encoder_equals_its_dense_twin(training):
    volume = make_volume((8, 11, 12), dtype=torch.float32, share=0.05)
    volume.features.requires_grad_()
    encoder = make_encoder().train(training)
    (out,) = encoder(volume)
    assert out.shape == (2, 5, 2, 3, 3)
    gradient = torch.autograd.grad(out.square().sum(), volume.features)
    expected = dense_twin(encoder, volume)
    twin_gradient = torch.autograd.grad(expected.square().sum(), volume.features)
    assert out.count_nonzero() > 20
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, twin_gradient, rtol=1e-3, atol=1e-4)


def test_samples_of_a_batch_do_not_touch():
    points = make_batch(2)[0]['points']
    voxels = SparseVoxelMean(RANGE, 0.5)
    encoder = OccSparseEncoder(6, 5, CHANNELS, base_channels=4).eval()
    (both,) = encoder(voxels(points))
    for i, cloud in enumerate(points):
        (alone,) = encoder(voxels([cloud]))
        torch.testing.assert_close(both[i], alone[0], rtol=1e-4, atol=1e-6)


def test_an_empty_cloud_gives_an_empty_volume():
    voxels = SparseVoxelMean(RANGE, 0.5)([torch.zeros(0, 5)])
    encoder = OccSparseEncoder(6, 5, CHANNELS, base_channels=4)
    (out,) = encoder.eval()(voxels)
    assert out.shape == (1, 5, 1, 4, 4) and not out.any()
    with pytest.raises(ValueError, match='0 occupied voxels'):
        encoder.train()(voxels)


def test_autocast_keeps_the_encoder_in_float32():
    volume = make_volume(dtype=torch.float32)
    encoder = make_encoder().eval()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        (out,) = encoder(volume)
    assert torch.equal(out, encoder(volume)[0])


def test_backends_that_cannot_run_are_named(monkeypatch):
    with pytest.raises(ValueError, match="backend takes .*'cuda'"):
        OccSparseEncoder(6, 5, backend='cuda')
    monkeypatch.setattr(sparse_encoder, 'has_spconv', lambda: False)
    with pytest.raises(ValueError, match='install the spconv wheel'):
        OccSparseEncoder(6, 5, backend='spconv')


@pytest.mark.parametrize(
    'channels, stage', [(((16, 16, 32), (64, 64)), 1), (((8, 16), (16,)), 0), (((),), 0)]
)
def test_channels_that_do_not_follow_are_named(channels, stage):
    with pytest.raises(ValueError, match=rf'encoder_channels\[{stage}\]'):
        OccSparseEncoder(6, 5, channels)


def test_spconv_refuses_to_train_on_a_cpu(monkeypatch):
    encoder = make_encoder()
    encoder.backend = 'spconv'
    with pytest.raises(ValueError, match="backend='torch' to train"):
        encoder(make_volume(dtype=torch.float32))


def test_weights_saved_with_spconv_load_without(monkeypatch):
    monkeypatch.setattr(sparse_encoder, 'has_spconv', lambda: False)
    encoder, other = make_encoder(), OccSparseEncoder(3, 5, CHANNELS, base_channels=4)
    state = encoder.state_dict()
    if any(v.dim() == 5 and v.shape[0] != 3 for v in state.values()):
        pytest.skip('this environment has spconv')
    saved = {key: v.permute(4, 0, 1, 2, 3) if v.dim() == 5 else v for key, v in state.items()}
    other.load_state_dict(saved, strict=True)
    for key, value in other.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_spconv_gives_the_numbers_of_plain_torch():
    pytest.importorskip('spconv', reason='spconv is not installed')
    volume = make_volume((8, 11, 12), dtype=torch.float32, share=0.05)
    encoder = make_encoder().eval()
    with torch.no_grad():
        (expected,) = encoder(volume)
        encoder.backend = 'spconv'
        (out,) = encoder(volume)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
