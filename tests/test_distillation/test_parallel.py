"""Processes, precisions, checkpointing, accumulation."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper

from radocc_plugin.registry import MODELS
from tests.test_distillation import ddp_worker
from tests.test_distillation.toy_distillation import TAP, assert_same_weights, batch_of, distilled
from tests.support.autocast import CPU_AUTOCAST

ROOT = Path(__file__).resolve().parents[2]


def launch(module: str, world_size: int, *arguments) -> None:
    """Runs ``python -m module RANK WORLD_SIZE *arguments`` in parallel."""
    environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    processes = [
        subprocess.Popen(
            [sys.executable, '-m', module, str(rank), str(world_size), *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(world_size)
    ]
    try:
        outputs = [p.communicate(timeout=300)[0] for p in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs):
        assert process.returncode == 0, output[-3000:]


def test_two_processes_equal_one_with_the_double_batch(tmp_path, teacher):
    single = ddp_worker.make_model(teacher)
    before = {k: v.clone() for k, v in single.state_dict().items()}
    ddp_worker.train(single, 0, 1)
    assert Path(teacher) == tmp_path / 'teacher.pth'
    launch('tests.test_distillation.ddp_worker', 2, tmp_path)
    first, second = (torch.load(tmp_path / f'rank{i}.pth') for i in (0, 1))
    assert_same_weights(first, second)
    for name, value in single.state_dict().items():
        assert not torch.equal(value, before[name])
        torch.testing.assert_close(first[name], value, atol=1e-5, rtol=1e-4)


def gradients(config, batches, autocast=None):
    """Losses and student gradients, accumulated over batches."""
    torch.manual_seed(0)
    model = MODELS.build(config).train()
    for batch in batches:
        with torch.autocast('cpu', autocast, enabled=autocast is not None):
            losses = model(*batch, mode='loss')
        (sum(losses.values()) / len(batches)).backward()
    return losses, {n: p.grad for n, p in model.named_parameters()}


def plain(teacher, **changes):
    config = distilled(teacher, feature=1.0)
    config['student'] = dict(config['student'], plain=True, **changes)
    config['renderer'].update(ray_sampler='grid', max_rays=None)
    return config


@pytest.mark.parametrize('dtype', CPU_AUTOCAST)
def test_half_precision_is_finite_and_close(teacher, dtype):
    batch = batch_of()
    losses, grads = gradients(plain(teacher), [batch], dtype)
    expected, full = gradients(plain(teacher), [batch])
    for name, value in losses.items():
        assert value.isfinite()
        torch.testing.assert_close(value.float(), expected[name], atol=0.02, rtol=0.05)
    for name, grad in grads.items():
        assert grad.isfinite().all()
        assert torch.cosine_similarity(grad.flatten(), full[name].flatten(), dim=0) > 0.98, name


@pytest.mark.parametrize('reentrant', [True, False])
def test_checkpointed_activations_change_nothing(teacher, reentrant):
    """The tapped part as a whole is computed again in the backward pass."""
    whole = plain(teacher, checkpointing=reentrant)
    del whole['losses']['feature'], whole['student_features']
    del whole['teacher_features']
    whole['student_tap'] = dict(module='volume', layout='b c x y z')
    expected = dict(whole, student=dict(whole['student'], checkpointing=None))
    batch = batch_of()
    losses, grads = gradients(whole, [batch])
    reference, reference_grads = gradients(expected, [batch])
    assert losses.keys() == reference.keys()
    for name in losses:
        assert losses[name] == reference[name]
    for name in grads:
        torch.testing.assert_close(grads[name], reference_grads[name])


def test_taps_inside_a_checkpointed_part(teacher):
    """Without reentrance they work; with it they carry no gradient, which
    is an error."""
    batch = batch_of()
    losses, grads = gradients(plain(teacher, checkpointing=False), [batch])
    reference, reference_grads = gradients(plain(teacher), [batch])
    for name in losses:
        assert losses[name] == reference[name]
    for name in grads:
        torch.testing.assert_close(grads[name], reference_grads[name])
    with pytest.raises(ValueError, match="'encode'.*no gradient.*reentrant"):
        gradients(plain(teacher, checkpointing=True), [batch])


def test_accumulated_gradients_are_those_of_the_whole_batch(teacher):
    config = plain(teacher)
    config['losses']['semantics'] = dict(type='radocc_plugin.LogitsKD', visible_only=False)
    parts = [batch_of((0, 1)), batch_of((2, 3))]
    _, accumulated = gradients(config, parts)
    _, whole = gradients(config, [batch_of((0, 1, 2, 3))])
    for name in whole:
        torch.testing.assert_close(accumulated[name], whole[name], atol=1e-6, rtol=1e-4)


def test_a_wrapper_that_accumulates_steps_every_second_time(teacher):
    model = MODELS.build(plain(teacher))
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    changed = []
    for step in range(4):
        MessageHub.get_current_instance().update_info('iter', step)
        before = model.student.head.weight.clone()
        inputs, samples = batch_of((step, step + 1))
        model.train_step(dict(inputs=inputs, data_samples=samples), wrapper)
        changed.append(not torch.equal(before, model.student.head.weight))
    assert changed == [False, True, False, True]
    assert TAP['module'] == 'head' and not model.student.head._forward_hooks
