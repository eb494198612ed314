"""Workarounds for dependencies; each says when it can go."""
import os

import torch
from mmengine.runner.checkpoint import CheckpointLoader


def load_from_local(filename: str, map_location=None, logger=None):
    """Loads a local checkpoint as MMEngine writes it.

    torch >= 2.6 unpickles weights only by default, and MMEngine <= 0.10.7
    cannot read its own checkpoints so (open-mmlab/mmengine#1655); goes when
    the lowest supported MMEngine passes ``weights_only=False`` itself. Full
    unpickling can run code: load files that you trust only.

    Raises:
        FileNotFoundError: If the file does not exist.
    """
    filename = os.path.expanduser(filename)
    if not os.path.isfile(filename):
        raise FileNotFoundError(f'{filename} can not be found.')
    return torch.load(filename, map_location=map_location, weights_only=False)


def apply() -> None:
    """Registers the workarounds; called once when our registry is imported."""
    CheckpointLoader.register_scheme(
        prefixes='', loader=load_from_local, force=True)
