"""Where a training starts: as its config says, or where it was stopped."""

from pathlib import Path
from typing import Optional

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import DistSamplerSeedHook, Hook
from mmengine.runner import IterBasedTrainLoop, set_random_seed

from radocc_plugin.engine.checkpoint_hook import check_checkpoint, intact_checkpoint
from radocc_plugin.fileio import file_hash
from radocc_plugin.registry import HOOKS


def set_start(config: Config, resume: Optional[str] = None) -> None:
    """Sets ``resume`` and ``load_from`` of a config for MMEngine's Runner.

    Args:
        config: Config with its ``work_dir``.
        resume: ``'auto'`` goes on from the latest intact checkpoint of the
            work folder, and starts as the config says, ``load_from``
            included, where none was written; a path goes on from that file;
            None leaves it to the config, whose ``resume=True`` without
            ``load_from`` is ``'auto'``.

    Raises:
        ValueError: If all checkpoints, or the file given, are damaged.
    """
    if resume is None:
        if not config.get('resume') or config.get('load_from') is not None:
            return
        resume = 'auto'
    if resume == 'auto':
        latest = intact_checkpoint(config.work_dir)
        config.resume = latest is not None
        if latest is not None:
            config.load_from = latest
    else:
        check_checkpoint(resume)
        config.resume, config.load_from = True, resume


def start_processes(config: Config, launcher: str) -> None:
    """Sets the launcher of a config; starts gloo where there is no GPU.

    MMEngine (<= 0.10.7) sets a CUDA device in every process that torchrun
    starts, and gives the number of one to the model's wrapper.
    """
    config.launcher = launcher
    if launcher != 'pytorch' or torch.cuda.is_available():
        return
    torch.distributed.init_process_group('gloo')
    config.setdefault(
        'model_wrapper_cfg',
        dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=config.get('find_unused_parameters', False),
        ),
    )


@HOOKS.register_module()
class InitialWeightsHook(Hook):
    """Tells every checkpoint what its training was started from.

    ``meta['initial_weights']`` is ``dict(file, hash)`` of the ``load_from`` of
    the first start, with the hash of ``file_hash`` (None for what is no local
    file); it stays when a run is resumed, and None says that nothing was
    loaded.
    """

    def __init__(self) -> None:
        self.loaded: Optional[dict] = None

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if runner._resume:
            self.loaded = checkpoint.get('meta', {}).get('initial_weights')
            return
        path = Path(runner._load_from).expanduser()
        self.loaded = dict(file=path.name, hash=file_hash(path) if path.is_file() else None)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint['meta']['initial_weights'] = self.loaded


@HOOKS.register_module()
class EpochSeedHook(DistSamplerSeedHook):
    """Tells samplers the epoch; seeds the model's own draws in each.

    Dropout and masks of a run that is resumed are then those of one that was
    never stopped. The seed follows from the run's, the rank and the
    iteration. A training that counts iterations is seeded in each of them,
    since it may be resumed at any.
    """

    def before_train_epoch(self, runner) -> None:
        super().before_train_epoch(runner)
        _seed_draws(runner)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            _seed_draws(runner)


def _seed_draws(runner) -> None:
    words = np.random.SeedSequence((runner.seed, get_rank(), runner.iter)).generate_state(1)
    set_random_seed(int(words[0]))
