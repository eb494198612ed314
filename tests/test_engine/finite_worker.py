"""One of two processes, of which the second meets a NaN in its second step.

python -m tests.test_engine.finite_worker RANK WORLD_SIZE FOLDER
"""

import logging
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from mmengine.logging import MessageHub
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper

from radocc_plugin.engine import FiniteStepHook


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=self.layer(inputs).square().mean())


def main(rank: int, world_size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=world_size
    )
    model = MMDistributedDataParallel(Line(), device_ids=None)
    lines = []
    logger = logging.getLogger('worker')
    logger.warning = lines.append
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    runner = SimpleNamespace(
        model=model,
        optim_wrapper=wrapper,
        logger=logger,
        iter=0,
        message_hub=MessageHub.get_instance('worker'),
    )
    hook = FiniteStepHook()
    hook.before_train(runner)
    changed = []
    sample = SimpleNamespace(metainfo=dict(token=f'rank{rank}'))
    for step in range(3):
        before = model.module.layer.weight.detach().clone()
        bad = step == 1 and rank == 1
        batch = dict(
            inputs=torch.full((2, 3), torch.nan if bad else 1.0 + rank), data_samples=[sample]
        )
        hook.before_train_iter(runner, step, batch)
        outputs = model.train_step(batch, wrapper)
        hook.after_train_iter(runner, step, batch, outputs)
        changed.append(not torch.equal(before, model.module.layer.weight))
    torch.save(
        dict(weights=model.module.state_dict(), changed=changed, log=' '.join(lines)),
        folder / f'rank{rank}.pth',
    )
    while not all((folder / f'rank{i}.pth').exists() for i in range(world_size)):
        time.sleep(0.05)  # the other may still listen to this process
    os._exit(0)  # see tests/test_distillation/ddp_worker.py


if __name__ == '__main__':
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
