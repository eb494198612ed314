"""The whole model: modes, losses, training, configs."""

import pytest
import torch
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch.utils.data import Dataset

from tests.support.models import build_model, load_config, make_batch, make_sample, train_steps

TINY = 'projects/BEVDetOcc/configs/bevdet-occ_tiny_1xb1-3e_synthetic.py'
FULL = 'projects/BEVDetOcc/configs/bevdet-occ_r50-256x704_8xb4-24e_occ3d.py'


@pytest.fixture(scope='module')
def model():
    return build_model(TINY).eval()


def test_modes_return_what_the_contract_says(model):
    inputs, samples = make_batch(2)
    with torch.no_grad():
        logits = model(inputs, samples)
        predictions = model(inputs, samples, mode='predict')
        losses = model(inputs, samples, mode='loss')
    assert logits.shape == (2, 200, 200, 16, 18)
    for sample, labels in zip(predictions, logits.argmax(-1)):
        assert isinstance(sample, BaseDataElement)
        assert sample.pred_occ.semantics.dtype == torch.uint8
        assert torch.equal(sample.pred_occ.semantics.long(), labels)
    assert set(losses) == {'loss_occ', 'loss_depth'}
    assert all(loss.isfinite() for loss in losses.values())
    with pytest.raises(ValueError, match='mode takes'):
        model(inputs, samples, mode='train')


def test_the_student_never_looks_at_points(model):
    inputs, samples = make_batch()
    with torch.no_grad():
        with_points = model(inputs, samples)
        without = model(dict(imgs=inputs['imgs']), samples)
    assert torch.equal(with_points, without)


def test_the_tap_names_the_module_that_returns_the_logits(model):
    inputs, samples = make_batch()
    outputs = []
    handle = model.get_submodule(model.occ_tap['module']).register_forward_hook(
        lambda *args: outputs.append(args[-1])
    )
    with torch.no_grad():
        logits = model(inputs, samples)
    handle.remove()
    assert model.occ_tap['layout'] == 'b x y z c'
    assert len(outputs) == 1 and outputs[0] is logits


def test_losses_without_visible_voxels_and_returns_are_zero():
    model = build_model(TINY)
    inputs, samples = make_batch()
    samples[0].gt_occ.mask_camera[:] = False
    samples[0].gt_depth[:] = 0
    losses = model(inputs, samples, mode='loss')
    assert all(loss == 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_mask_can_be_switched_off(model):
    inputs, samples = make_batch()
    samples[0].gt_occ.mask_camera[:] = False
    unmasked = build_model(TINY, **{'occ_head.use_mask': False}).eval()
    with torch.no_grad():
        loss = unmasked(inputs, samples, mode='loss')['loss_occ']
        logits = unmasked(inputs, samples)
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, -2),
        samples[0].gt_occ.semantics.flatten().long(),
        weight=unmasked.occ_head.class_weight,
    )
    torch.testing.assert_close(loss, expected)


def test_missing_depth_maps_are_named(model):
    inputs, samples = make_batch()
    del samples[0].gt_depth
    with pytest.raises(ValueError, match='gt_depth'):
        model(inputs, samples, mode='loss')


def test_autocast_keeps_lift_and_losses_in_float32(model):
    inputs, samples = make_batch()
    with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16):
        volume, depth = model.extract_volume(inputs, samples)
        losses = model(inputs, samples, mode='loss')
    assert volume.dtype == depth.dtype == torch.float32
    assert all(loss.dtype == torch.float32 for loss in losses.values())


def test_a_few_steps_learn_a_frame():
    first, *_, last = train_steps(build_model(TINY))
    assert last['loss_occ'] < 0.9 * first['loss_occ']


class TwoFrames(Dataset):
    """Random items as the pipeline packs them."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        images = torch.randint(256, (6, 3, 96, 256), generator=generator, dtype=torch.uint8)
        return dict(inputs=dict(img=images), data_samples=make_sample(seed=index))


def test_two_iterations_of_the_runner(tmp_path):
    config = load_config(TINY)
    runner = Runner(
        model=config.model,
        work_dir=str(tmp_path),
        train_dataloader=dict(
            batch_size=1,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=TwoFrames(),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=config.optim_wrapper,
        param_scheduler=config.param_scheduler,
        default_hooks=config.default_hooks,
        default_scope=config.default_scope,
        randomness=config.randomness,
        experiment_name='bevdet_occ_two_iterations',
    )
    before = runner.model.occ_head.predicter[0].weight.clone()
    runner.train()
    assert runner.iter == 2
    assert not torch.equal(before, runner.model.occ_head.predicter[0].weight)
    assert (tmp_path / 'epoch_1.pth').is_file()


def test_the_full_size_config_has_the_published_parameters(golden):
    model = build_model(FULL)
    golden.check_keys(model, golden.case('flashocc_bevdetocc_full'))


def test_full_and_tiny_models_share_grid_and_classes():
    for path in (TINY, FULL):
        model = build_model(path)
        grid = model.img_view_transformer.grid
        assert grid.point_cloud_range == (-40, -40, -1, 40, 40, 5.4)
        voxels = tuple(n * model.occ_head.upsample for n in grid.shape)
        assert voxels == (200, 200, 16)
        assert model.occ_head.num_classes == 18


def test_images_padded_by_the_preprocessor_train_with_depth():
    """Of 88 x 240 pixels, which no stride of 16 divides."""
    model = build_model(TINY).train()
    stride = model.img_view_transformer.downsample
    model.data_preprocessor.pad_size_divisor = 2 * stride
    (inputs, samples), size = make_batch(2, size=(88, 240)), (88, 240)
    data = model.data_preprocessor(
        dict(inputs=dict(img=list(inputs['imgs'])), data_samples=samples), True
    )
    assert data['inputs']['imgs'].shape[-2:] != size
    losses = model(**data, mode='loss')
    assert losses['loss_depth'] > 0
