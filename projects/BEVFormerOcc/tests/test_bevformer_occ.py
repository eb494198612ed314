"""The whole model: modes, losses, queue and stream."""

import copy
import io
import warnings

import numpy as np
import pytest
import torch

from radocc_plugin.models.bevformer import SceneStream
from tests.support.drives import GRID, HEAD, Drive, queue_batch, small_model, stream_batch


@pytest.fixture(scope='module')
def model():
    return small_model().eval()


@pytest.fixture(autouse=True)
def no_memory(model):
    model.stream.reset()


def run(model, batch, **kwargs):
    with torch.no_grad():
        return model(*batch, **kwargs)


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_modes_return_what_the_contract_says(model):
    batch = stream_batch((Drive(1), 0), (Drive(2), 0))
    logits = run(model, batch)
    predictions = run(model, batch, mode='predict')
    losses = run(model, batch, mode='loss')
    assert logits.shape == (2, GRID, GRID, 4, 18)
    for sample, labels in zip(predictions, logits.argmax(-1)):
        assert sample.pred_occ.semantics.dtype == torch.uint8
        assert torch.equal(sample.pred_occ.semantics.long(), labels)
    assert set(losses) == {'loss_occ'} and losses['loss_occ'].isfinite()
    with pytest.raises(ValueError, match='mode takes'):
        run(model, batch, mode='train')


def test_the_tap_sees_the_logits_of_the_current_frame_alone(model):
    outputs = []
    handle = model.get_submodule(model.occ_tap['module']).register_forward_hook(
        lambda *args: outputs.append(args[-1])
    )
    logits = run(model, queue_batch((Drive(1), 2)))
    handle.remove()
    assert model.occ_tap['layout'] == 'b x y z c'
    assert len(outputs) == 1 and outputs[0] is logits
    assert model.occ_tap['class_weight'] == model.pts_bbox_head.class_weight.tolist()


@pytest.mark.parametrize('use_mask', [False, True])
def test_the_loss_is_over_all_voxels_or_those_a_camera_sees(use_mask):
    model = small_model(**{f'{HEAD}use_mask': use_mask}).eval()
    batch = stream_batch((Drive(1), 0))
    loss = run(model, batch, mode='loss')['loss_occ']
    truth = batch[1][0].gt_occ
    kept = truth.mask_camera if use_mask else torch.ones_like(truth.mask_camera)
    expected = torch.nn.functional.cross_entropy(
        run(model, batch)[0][kept],
        truth.semantics[kept].long(),
        weight=model.pts_bbox_head.class_weight,
    )
    torch.testing.assert_close(loss, expected)


def test_frames_one_by_one_are_a_queue(model):
    """The same poses once in a common ego frame, once in their own."""
    drive = Drive(1)
    for time in range(3):
        streamed = run(model, stream_batch((drive, time)))
    close(streamed, run(model, queue_batch((drive, 2), past=2)))
    assert (run(model, stream_batch((drive, 2))) - streamed).abs().max() > 1e-2  # without a past


def test_scenes_as_slots_of_a_batch_do_not_mix(model):
    """Slot 0 changes its scene while slot 1 goes on; scenes change slots."""
    a, b, c = Drive(1), Drive(2), Drive(3)
    steps = [[(a, 0), (b, 0)], [(a, 1), (b, 1)], [(c, 0), (b, 2)], [(b, 3), (c, 1)]]
    expected = {}
    for drive in (a, b, c):
        for time in range(4):
            expected[drive, time] = run(model, stream_batch((drive, time)))
    model.stream.reset()
    for moments in steps:
        logits = run(model, stream_batch(*moments))
        for own, moment in zip(logits, moments):
            close(own[None], expected[moment])


def test_a_queue_of_several_samples_is_each_sample_alone(model):
    """One of them has no past, one half of it."""
    moments = [(Drive(1), 2), (Drive(2), 0), (Drive(3), 1)]
    together = run(model, queue_batch(*moments))
    for own, moment in zip(together, moments):
        close(own[None], run(model, queue_batch(moment)))


def test_a_stream_goes_on_after_a_resume(model):
    a, b = Drive(1), Drive(2)
    run(model, stream_batch((a, 0), (b, 0)))
    saved = io.BytesIO()
    torch.save(model.stream.state_dict(), saved)
    expected = run(model, stream_batch((a, 1), (b, 1)))
    saved.seek(0)
    resumed, stream = copy.deepcopy(model), SceneStream()
    stream.load_state_dict(torch.load(saved))
    resumed.stream.reset()
    batch = stream_batch((a, 1), (b, 1))
    assert torch.equal(run(resumed, batch, stream=stream), expected)
    assert len(resumed.stream) == 0 and len(stream) == 2


def test_a_skipped_keyframe_starts_the_scene_anew(model):
    drive = Drive(1)
    alone = run(model, stream_batch((drive, 2)))
    model.stream.reset()
    run(model, stream_batch((drive, 0)))
    assert torch.equal(run(model, stream_batch((drive, 2))), alone)


def test_what_is_remembered_is_in_no_checkpoint(model):
    before = set(model.state_dict())
    run(model, stream_batch((Drive(1), 0)))
    assert len(model.stream) == 1 and set(model.state_dict()) == before


def test_a_scene_that_begins_again_is_reset(model):
    drive = Drive(1)
    first = run(model, stream_batch((drive, 0)))
    run(model, stream_batch((drive, 1)))
    assert torch.equal(run(model, stream_batch((drive, 0))), first)


def test_training_forgets_the_stream():
    model = small_model().eval()
    run(model, stream_batch((Drive(1), 0)))
    assert len(model.stream) == 1
    assert model.eval() is model and len(model.stream) == 1
    assert model.train() is model and len(model.stream) == 0


def test_without_video_every_frame_is_a_first_one(model):
    single = small_model(video_test_mode=False).eval()
    single.load_state_dict(model.state_dict())
    drive = Drive(1)
    run(single, stream_batch((drive, 0)))
    assert len(single.stream) == 0
    expected = run(model, stream_batch((drive, 1)))
    assert torch.equal(run(single, stream_batch((drive, 1))), expected)


def test_gradients_come_from_the_current_frame_only(model):
    inputs, samples = queue_batch((Drive(1), 2))
    for images in inputs.values():
        images.requires_grad_()
    model(inputs, samples).square().mean().backward()
    model.zero_grad()
    assert inputs['imgs'].grad.any()
    assert inputs['adjacent_imgs'].grad is None


def test_past_frames_run_in_eval_mode_and_leave_modes_as_they_were():
    model = small_model().train()
    model.img_neck.eval()
    modes = {m: m.training for m in model.modules()}
    seen = []
    model.img_backbone.register_forward_hook(
        lambda module, args, out: seen.append((module.training, torch.is_grad_enabled()))
    )
    counter = model.img_backbone.bn1.num_batches_tracked
    model(*queue_batch((Drive(1), 2)), mode='loss')
    assert seen == [(False, False), (False, False), (True, True)]
    assert counter == 1
    assert modes == {m: m.training for m in model.modules()}


def test_every_parameter_of_the_head_learns():
    model = small_model()
    batch = queue_batch((Drive(1), 1), (Drive(2), 2))
    sum(model(*batch, mode='loss').values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or not name.startswith(HEAD), name


def test_new_attention_looks_in_circles_with_equal_weights():
    model = small_model()
    model.init_weights()
    for layer in model.pts_bbox_head.transformer.encoder.layers:
        temporal, spatial = layer.attentions
        for part in (temporal, spatial.deformable_attention):
            assert not part.sampling_offsets.weight.any()
            assert not part.attention_weights.weight.any()
            offsets = part.sampling_offsets.bias.view(part.num_heads, -1, part.num_points, 2)
            radii = offsets.abs().amax(-1)
            expected = torch.arange(1.0, part.num_points + 1)
            torch.testing.assert_close(radii, expected.expand_as(radii))


def test_a_few_steps_learn_a_frame():
    model = small_model()
    inputs, samples = queue_batch((Drive(1), 2))
    samples[0].gt_occ.semantics[:] = 17
    samples[0].gt_occ.semantics[..., :1] = 11
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    history = []
    for _ in range(5):
        loss = model(inputs, samples, mode='loss')['loss_occ']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert history[-1] < 0.8 * history[0]


@pytest.mark.parametrize(
    'name, remedy',
    [('can_bus', 'of the dataset'), ('scene_token', 'video_test_mode'), ('cam2ego', 'meta_keys')],
)
def test_missing_metainfo_is_named(model, name, remedy):
    inputs, (sample,) = stream_batch((Drive(1), 0))
    sample.pop(name)
    with pytest.raises(ValueError, match=f'{name}.*{remedy}'):
        run(model, (inputs, [sample]))


def test_two_frames_of_a_scene_in_a_batch_are_refused(model):
    drive = Drive(1)
    with pytest.raises(ValueError, match='several frames of one scene'):
        run(model, stream_batch((drive, 0), (drive, 1)))
    # copies of one frame are a benchmark's
    twice = run(model, stream_batch((drive, 0), (drive, 0)))
    close(twice[0], twice[1])


def test_a_forgotten_scene_cannot_go_on(model):
    stream = SceneStream(max_scenes=1)
    for scene in (1, 2):
        run(model, stream_batch((Drive(scene), 0)), stream=stream)
    assert len(stream) == 1
    with pytest.raises(ValueError, match='max_scenes'):
        run(model, stream_batch((Drive(1), 1)), stream=stream)
    run(model, stream_batch((Drive(1), 0)), stream=stream)  # begins anew
    with pytest.raises(ValueError, match='max_scenes'):
        SceneStream(max_scenes=0)


@pytest.mark.parametrize(
    'field, value',
    [
        ('shift_frame', 'camera'),
        ('pillar_h', 7),
        ('num_feature_levels', 1),
        ('encoder.num_points', 6),
        ('encoder.num_heads', 5),
    ],
)
def test_settings_that_do_not_fit_are_named(field, value):
    with pytest.raises(ValueError, match=field.split('.')[-1]):
        small_model(**{f'{HEAD}transformer.{field}': value})


def test_levels_that_do_not_fit_are_named():
    model = small_model(**{'img_neck.num_outs': 3}).eval()
    with pytest.raises(ValueError, match='num_outs'):
        run(model, stream_batch((Drive(1), 0)))


def test_the_published_shift_gives_other_predictions(model):
    published = small_model(**{f'{HEAD}transformer.shift_frame': 'lidar'})
    published.load_state_dict(model.state_dict())
    batch = queue_batch((Drive(1), 2))
    difference = run(published.eval(), batch) - run(model, batch)
    assert difference.abs().max() > 1e-3


@pytest.mark.parametrize('signs', [(-1, 1), (1, -1)])
def test_a_mirrored_stream_is_its_mirrored_queue(model, signs):
    drive = Drive(1, bda_mat=np.diag([*signs, 1.0, 1.0]))
    for time in range(2):
        streamed = run(model, stream_batch((drive, time)))
    close(streamed, run(model, queue_batch((drive, 1), past=1)))


def test_autocast_keeps_attention_and_loss_in_float32(model):
    batch = queue_batch((Drive(1), 1))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = run(model, batch, mode='loss')['loss_occ']
    assert loss.dtype == torch.float32 and loss.isfinite()


def test_a_frame_without_its_past_says_so(model):
    """Out of order, and the second of a scene alone; not the first."""
    drive = Drive(1)
    with pytest.warns(UserWarning, match='came without the one before'):
        run(model, stream_batch((drive, 2)), stream=SceneStream())
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        stream = SceneStream()
        for time in (0, 1):
            run(model, stream_batch((drive, time)), stream=stream)


def test_another_number_of_cameras_names_itself(model):
    inputs, (sample,) = stream_batch((Drive(1), 0))
    inputs['imgs'] = inputs['imgs'][:, :1]
    for name in ('cam2img', 'cam2ego', 'img_aug_mat'):
        sample.set_metainfo({name: sample.metainfo[name][:1]})
    with pytest.raises(ValueError, match='num_cams .* is 6.* 1 cameras'):
        run(model, (inputs, [sample]))
