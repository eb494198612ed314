"""The model: modes, classes, losses, the schedule, checkpoints."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from radocc_plugin.distillation.tap import build_tap
from radocc_plugin.models.fbocc import FBOcc, FBOccHead, HistoryScheduleHook
from radocc_plugin.models.fbocc.attention import deformable_attention, depth_likelihood
from radocc_plugin.models.fbocc.occ_head import mix_levels, split_cells
from radocc_plugin.occ3d import FREE
from radocc_plugin.registry import MODELS
from tests.support.models import (
    DRIVEABLE,
    ROOT,
    build_model,
    load_config,
    make_batch,
    read_key_list,
)
from tests.support.streams import make_frames

TINY = 'projects/FBOcc/configs/fbocc_tiny_1xb1-3e_synthetic.py'
FULL = 'projects/FBOcc/configs/fbocc_r50-256x704_16xb4-20e_occ3d.py'


@pytest.fixture(scope='module')
def model():
    return build_model(TINY)


def test_modes_return_what_the_contract_says(model):
    inputs, samples = make_frames(0)[0]
    tap = build_tap(None, model, 'student_tap')
    with torch.no_grad(), tap.record(model.eval()) as outputs:
        logits = model(inputs, samples)
        losses = model(inputs, samples, mode='loss')
        (sample,) = model(inputs, samples, mode='predict')
    assert logits.shape == (1, 200, 200, 16, 18)
    assert torch.equal(sample.pred_occ.semantics.long(), logits[0].argmax(-1))
    assert torch.equal(tap.read(outputs[:1]), logits)
    assert set(losses) == {'loss_focal', 'loss_sem_scal', 'loss_geo_scal', 'loss_depth'}
    with pytest.raises(ValueError, match="got 'train'"):
        model(inputs, samples, mode='train')


def test_missing_depth_is_named(model):
    inputs, samples = make_frames(0)[0]
    del samples[0].gt_depth
    with pytest.raises(ValueError, match='gt_depth'):
        model(inputs, samples, mode='loss')


def test_a_voxel_of_a_logit_is_where_its_label_is(model):
    """Axes and classes: raising one voxel's logit mends its label's loss."""
    head = model.occupancy_head
    _, samples = make_batch()
    occ = samples[0].gt_occ
    occ.semantics[:] = FREE
    occ.semantics[150, 30, 5] = 4
    occ.mask_camera[:] = True
    logits = torch.zeros(1, 19, 200, 200, 16, requires_grad=True)
    sum(head.loss(logits, samples).values()).backward()
    car = logits.grad[0, 1 + 4]  # behind void
    assert car[30, 150, 5] < 0  # y, x, z
    car = car.clone()
    car[30, 150, 5] = 0
    assert (car >= 0).all()


def test_hidden_and_unlabelled_voxels_do_not_count(model):
    head = FBOccHead(in_channels=4, channels=4, hidden_channels=4)
    _, samples = make_batch()
    occ = samples[0].gt_occ
    logits = torch.randn(1, 19, 200, 200, 16)
    occ.semantics[100:] = 255
    before = head.loss(logits, samples)
    assert set(before) == {'loss_focal', 'loss_sem_scal', 'loss_geo_scal', 'loss_lovasz'}
    counted = (occ.mask_camera & (occ.semantics < 255)).transpose(0, 1)
    changed = torch.where(counted, logits, torch.full_like(logits, torch.nan))
    assert head.loss(changed, samples) == before
    occ.mask_camera[:] = False
    empty = head.loss(logits.requires_grad_(), samples)
    assert all(loss == 0 and loss.requires_grad for loss in empty.values())


def test_losses_are_those_of_the_registered_modules():
    head = FBOccHead(in_channels=4, channels=4, hidden_channels=4)
    _, samples = make_batch()
    occ = samples[0].gt_occ
    logits = torch.randn(1, 19, 200, 200, 16)
    ours = head.loss(logits, samples)
    labels, mask = occ.semantics[None].long() + 1, occ.mask_camera[None]
    registered = dict(
        focal=dict(type='radocc_plugin.OccFocal', class_weight='balanced_with_void', radial=True),
        sem_scal=dict(type='radocc_plugin.OccSemScal', void_index=0),
        geo_scal=dict(type='radocc_plugin.OccGeoScal'),
        lovasz=dict(type='radocc_plugin.OccLovasz'),
    )
    for name, config in registered.items():
        theirs = MODELS.build(config)(logits.permute(0, 3, 2, 4, 1), labels, mask)
        torch.testing.assert_close(ours[f'loss_{name}'], theirs)
    with pytest.raises(ValueError, match='loss_weights.*cross'):
        FBOccHead(loss_weights=dict(cross_entropy=1.0))


def test_recomputed_levels_have_the_same_gradient():
    torch.manual_seed(0)
    kept = FBOccHead(8, 4, 4, num_levels=2)
    again = FBOccHead(8, 4, 4, num_levels=2, with_cp=True)
    again.load_state_dict(kept.state_dict())
    levels = [torch.randn(1, 8, 6, 4, 4), torch.randn(1, 8, 3, 2, 2)]
    gradients = []
    for head in (kept, again):
        logits = head(levels)
        logits.square().sum().backward()
        gradients.append([p.grad for p in head.parameters()])
    assert logits.shape == (1, 19, 12, 8, 8)
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other)
    for buffer, other in zip(kept.buffers(), again.buffers()):
        assert torch.equal(buffer, other)


def test_level_weights_choose_levels_and_cells_split_into_neighbours():
    fine, coarse = torch.randn(1, 2, 4, 4, 2), torch.randn(1, 2, 2, 2, 1)
    weights = torch.zeros(1, 2, 4, 4, 2)
    weights[:, 0] = 1
    assert torch.equal(mix_levels(weights, fine, coarse), fine)
    constant = mix_levels(weights.flip(1), fine, torch.ones_like(coarse))
    assert torch.equal(constant, torch.ones_like(fine))
    cells = torch.arange(16.0).view(1, 16, 1, 1, 1)
    voxels = split_cells(cells, 2)
    assert voxels.shape == (1, 2, 2, 2, 2)
    assert voxels[0, 1, 1, 0, 1] == 8 + 4 + 1


def test_likelihood_is_that_of_the_bin_between_pixels():
    depth = torch.rand(5, 3, 4).softmax(0)
    centres = torch.tensor([[[1.5 / 4, 0.5 / 3], [2.0 / 4, 0.5 / 3], [1.5, 0.5]]])
    likelihood = depth_likelihood(depth[None], centres[None], torch.tensor([[[3, 2, 1]]]))[0]
    expected = torch.stack([depth[3, 0, 1], depth[2, 0, 1:3].mean(), torch.tensor(0.0)])
    torch.testing.assert_close(likelihood[0], expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
def test_both_forms_of_deformable_attention_agree():
    torch.manual_seed(0)
    value, locations, weights = (
        torch.randn(1, 5, 7, 2, 8),
        torch.rand(1, 9, 2, 4, 2),
        torch.rand(1, 9, 2, 4),
    )
    results = []
    for device in ('cpu', 'cuda'):
        tensors = [x.to(device).requires_grad_() for x in (value, locations, weights)]
        out = deformable_attention(*tensors)
        grads = torch.autograd.grad(out.square().sum(), tensors)
        results.append([x.cpu() for x in (out.detach(), *grads)])
    for one, other in zip(*results):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_few_steps_learn_and_every_learned_parameter_gets_a_gradient():
    model = build_model(TINY, **{'occupancy_head.loss_weights.lovasz': 1.0})
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    history = []
    for inputs, samples in make_frames(0):
        occ = samples[0].gt_occ
        occ.semantics[:] = FREE
        occ.semantics[:, :, :3] = DRIVEABLE
        losses = model(inputs, samples, mode='loss')
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append(float(losses['loss_focal'].detach()))
    assert history[-1] < 0.9 * history[0]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    # used by no published config
    frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ['backward_projection.transformer.cams_embeds']


def test_autocast_keeps_volumes_and_losses_in_float32(model):
    inputs, samples = make_frames(0)[0]
    with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16):
        volume, depth = model.extract_volume(inputs, samples)
    assert volume.dtype == depth.dtype == torch.float32


def test_autocast_keeps_the_3d_part_in_float32(model):
    """As published, encoder, pyramid and head are no part of fp16."""
    inputs, samples = make_frames(0)[0]
    seen = {}
    parts = ('img_bev_encoder_backbone', 'img_bev_encoder_neck', 'occupancy_head')
    hooks = [
        module.register_forward_hook(
            lambda module, args, out, name=name: seen.update({name: out.dtype})
        )
        for part in parts
        for name, module in model.get_submodule(part).named_modules(prefix=part)
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d))
    ]
    try:
        with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16):
            losses = model(inputs, samples, mode='loss')
    finally:
        for hook in hooks:
            hook.remove()
    assert len(seen) > 10 and set(seen.values()) == {torch.float32}
    assert all(loss.dtype == torch.float32 for loss in losses.values())


def test_the_schedule_switches_the_past_on_and_resumes(model):
    hook = HistoryScheduleHook(begin=2)
    runner = SimpleNamespace(model=nn.ModuleDict(dict(student=model)), iter=0)
    hook.before_train(runner)
    for iteration, expected in enumerate([False, False, True]):
        runner.iter = iteration
        hook.before_train_iter(runner, 0)
        assert model.do_history is expected
    resumed = HistoryScheduleHook(begin=2)
    model.do_history = False
    runner.iter = 7
    resumed.before_train(runner)
    resumed.before_train_iter(runner, 0)
    assert model.do_history
    runner.model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match='FBOcc, got Linear'):
        resumed.before_train(runner)


def test_without_history_the_past_is_the_frame(model):
    """In training only."""
    first, second = make_frames(0, length=2)
    model.train()
    model.do_history = False
    try:
        with torch.no_grad():
            model(*first), model(*second)
        # as published, copies of a frame in a sequence are one frame old
        (memory,) = model.streams['train'].memories.values()
        assert memory.steps.tolist() == [0, 1, 1, 1]
        with torch.no_grad():
            model(*first)
        (memory,) = model.streams['train'].memories.values()
        assert not memory.steps.any()
        model.published_motion = False
        with torch.no_grad():
            model(*first), model(*second)
        (memory,) = model.streams['train'].memories.values()
        assert not memory.steps.any()
        model.eval()
        with torch.no_grad():
            model(*first), model(*second)
        (memory,) = model.streams['test'].memories.values()
        assert memory.steps.tolist() == [0, 1, 1, 1]
    finally:
        model.do_history = model.published_motion = True


def test_golden_keys_and_shapes():
    state = read_key_list('fbocc-r50-cbgs_depth_16f_16x4_20e')
    model = build_model(FULL)
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in state.items()
    }
    model.load_state_dict(state)
    assert not model.occupancy_head.deblock[0].weight.any()
    # the published count has the three constants of the grid in it
    count = sum(p.numel() for p in model.parameters()) + 3 * 3
    assert round(count / 1e6, 3) == 68.458


def test_full_and_tiny_models_share_grid_and_classes():
    for path in (TINY, FULL):
        config = load_config(path).model
        assert isinstance(MODELS.build(config), FBOcc)
        assert config.grid_config.x == (-40, 40, 0.8)
        assert config.grid_config.z == (-1, 5.4, 0.8)


def test_importing_the_package_spares_mmdet3d():
    code = 'import sys, radocc_plugin.models.fbocc; sys.exit("mmdet3d" in sys.modules)'
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)
