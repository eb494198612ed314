from radocc_plugin.engine.checkpoint_hook import (
    SafeCheckpointHook,
    check_checkpoint,
    intact_checkpoint,
    latest_checkpoint,
)
from radocc_plugin.engine.ema import MEGVIIEMA, MEGVIIEMAHook
from radocc_plugin.engine.finite_steps import FiniteStepHook
from radocc_plugin.engine.label_space import CheckLabelSpaceHook
from radocc_plugin.engine.operators import OperatorCounter
from radocc_plugin.engine.profiler import Stage, StageMeter, find_stages
from radocc_plugin.engine.start import EpochSeedHook, InitialWeightsHook, set_start, start_processes

__all__ = [
    'CheckLabelSpaceHook',
    'EpochSeedHook',
    'FiniteStepHook',
    'InitialWeightsHook',
    'MEGVIIEMA',
    'MEGVIIEMAHook',
    'OperatorCounter',
    'SafeCheckpointHook',
    'Stage',
    'StageMeter',
    'check_checkpoint',
    'find_stages',
    'intact_checkpoint',
    'latest_checkpoint',
    'set_start',
    'start_processes',
]
