"""What every process must keep for a resume beside the checkpoint of one."""

import warnings
from typing import List, Optional

from mmengine.dist import all_gather_object, get_rank, get_world_size
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def gather_states(runner, streams: bool) -> List[dict]:
    """The state of each process, by rank.

    Args:
        runner: In training.
        streams: Whether to take along what models carry from frame to frame
            (``stream_state`` of their modules).

    Returns:
        A dict of each process: ``gradients`` (by parameter, of batches that
        wait for the rest of their step; empty between two steps),
        ``streams`` (by module) and ``statistics`` (by buffer, of batch norms
        that are not synchronised: each process keeps those of its own
        batches, and BEVFormer reads them in training for past frames).
    """
    state = dict(gradients={}, streams={}, statistics={})
    wrapper = runner.optim_wrapper
    # MMEngine's count of batches; it tells no other way
    if getattr(wrapper, '_inner_count', 0) % getattr(wrapper, '_accumulative_counts', 1):
        state['gradients'] = {
            name: parameter.grad.cpu()
            for name, parameter in runner.model.named_parameters()
            if parameter.grad is not None
        }
    if streams:
        state['streams'] = {
            name: module.stream_state() for name, module in _streaming(runner.model)
        }
    if get_world_size() > 1:
        state['statistics'] = {name: buffer.cpu() for name, buffer in _statistics(runner.model)}
    if not any(state.values()):
        return []  # alike on all processes
    return all_gather_object(state)


def restore_state(runner, states: Optional[List[dict]]) -> None:
    """Gives a resumed process what ``gather_states`` took from it.

    As many processes as then, or a warning: the first steps are others.
    """
    if not states:
        return
    rank = get_rank()
    if rank >= len(states):
        warnings.warn(
            f'the checkpoint is of {len(states)} processes and has no state for rank {rank}: '
            'its streams start anew'
        )
        return
    for name, parameter in runner.model.named_parameters():
        gradient = states[rank]['gradients'].get(name)
        if gradient is not None:
            parameter.grad = gradient.to(parameter)
    statistics = states[rank].get('statistics', {})  # checkpoints before had none
    for name, buffer in _statistics(runner.model):
        if name in statistics:
            buffer.copy_(statistics[name])
    for name, module in _streaming(runner.model):
        if name in states[rank]['streams']:
            module.load_stream_state(states[rank]['streams'][name])


def _streaming(model: nn.Module):
    return [(n, m) for n, m in model.named_modules() if hasattr(m, 'stream_state')]


def _statistics(model: nn.Module):
    return [
        (f'{name}.{key}', buffer)
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
        for key, buffer in module.named_buffers(recurse=False)
    ]
