"""One process of a distributed training of the toy, for test_parallel.py.

python -m tests.test_distillation.ddp_worker RANK WORLD_SIZE FOLDER
"""

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.logging import MessageHub
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper

from radocc_plugin.registry import MODELS
from tests.test_distillation.toy_distillation import batch_of, distilled

STEPS, BATCH = 4, 4


def make_model(teacher: str):
    """Losses that are means over equal parts, so that processes average.

    The adapter rests in the first two steps.
    """
    torch.manual_seed(0)
    config = distilled(teacher, feature=1.0)
    config['student'] = dict(config['student'], plain=True)
    config['renderer'].update(ray_sampler='grid', max_rays=None)
    config['losses']['semantics'] = dict(type='radocc_plugin.LogitsKD', visible_only=False)
    config['schedules'] = dict(feature=dict(start=2), depth=dict(ramp=3))
    return MODELS.build(config)


def train(model, rank: int, world_size: int) -> None:
    """Steps on this process's share of the batches."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    wrapper = OptimWrapper(optimizer, clip_grad=dict(max_norm=0.5))
    share = BATCH // world_size
    hub = MessageHub.get_current_instance()
    for step in range(STEPS):
        hub.update_info('iter', step)
        first = step * BATCH % 12 + rank * share
        inputs, samples = batch_of(range(first, first + share))
        model.train_step(dict(inputs=inputs, data_samples=samples), wrapper)


def main(rank: int, world_size: int, folder: Path) -> None:
    os.environ['LOCAL_RANK'] = str(rank)
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=world_size
    )
    model = MMDistributedDataParallel(
        make_model(str(folder / 'teacher.pth')),
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=False,
    )
    train(model, rank, world_size)
    torch.save(model.module.state_dict(), folder / f'rank{rank}.pth')
    weights = [folder / f'rank{i}.pth' for i in range(world_size)]
    while not all(path.exists() for path in weights):
        time.sleep(0.05)  # the others may still listen to this process
    # Leave at once: while Python destroys the model, gloo's thread can wait
    # for the interpreter, which waits for that thread (seen with torch 2.13).
    os._exit(0)


if __name__ == '__main__':
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
