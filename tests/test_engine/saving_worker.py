"""A toy training that is killed, for test_checkpoint_hook.py.

    python -m tests.test_engine.saving_worker FOLDER EPOCHS [WHERE EPOCH]

WHERE is ``saving`` (half of the file is written) or ``renaming`` (all of it,
under its temporary name), or ``renamed`` (its place is taken, nothing else
is done); it happens while EPOCH's checkpoint is saved.
"""

import os
import signal
import sys
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from radocc_plugin import fileio
from radocc_plugin.engine import set_start
from radocc_plugin.registry import DATASETS
from tests.test_distillation.toy_distillation import STUDENT, ToyData

DATASETS.register_module('SavedToyData', force=True, module=ToyData)


def train(folder: Path, epochs: int, **hook) -> Runner:
    """A Runner that has trained, from where the folder is."""
    config = Config(
        dict(
            model=STUDENT,
            work_dir=str(folder),
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            train_dataloader=dict(
                dataset=dict(type='radocc_plugin.SavedToyData'),
                batch_size=6,
                sampler=dict(type='radocc_plugin.SeededSampler'),
                collate_fn=dict(type='pseudo_collate'),
            ),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-2), clip_grad=dict(max_norm=5.0)),
            default_hooks=dict(
                checkpoint=dict(
                    type='radocc_plugin.SafeCheckpointHook',
                    **dict(dict(interval=1, max_keep_ckpts=2), **hook),
                ),
                finite_steps=dict(type='radocc_plugin.FiniteStepHook'),
                sampler_seed=dict(type='radocc_plugin.EpochSeedHook'),
            ),
            randomness=dict(seed=4),
            experiment_name=f'{folder.name}{epochs}',
            log_level='ERROR',
        )
    )
    set_start(config, 'auto')
    runner = Runner.from_cfg(config)
    runner.train()
    return runner


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(where: str, name: str) -> None:
    """Lets the writing of the file ``name`` end in a kill."""
    replace, fsync = os.replace, os.fsync

    def killed_replace(source, target):
        if Path(target).name == name:
            if where == 'renamed':
                replace(source, target)
            die()
        replace(source, target)

    def killed_fsync(descriptor):
        path = Path(os.readlink(f'/proc/self/fd/{descriptor}'))
        if path.name.startswith(f'.{name}.'):
            os.truncate(descriptor, path.stat().st_size // 2)
            die()
        fsync(descriptor)

    if where == 'saving':
        fileio.os.fsync = killed_fsync
    else:
        fileio.os.replace = killed_replace


if __name__ == '__main__':
    if len(sys.argv) > 3:
        die_at(sys.argv[3], f'epoch_{sys.argv[4]}.pth')
    train(Path(sys.argv[1]), int(sys.argv[2]))
