from radocc_plugin.engine.ema import MEGVIIEMA, MEGVIIEMAHook
from radocc_plugin.engine.label_space import CheckLabelSpaceHook
from radocc_plugin.engine.operators import OperatorCounter
from radocc_plugin.engine.stages import Stage, StageMeter, find_stages
from radocc_plugin.engine.start import (EpochSeedHook, InitialWeightsHook,
                                        latest_checkpoint, set_start,
                                        start_processes)

__all__ = [
    'CheckLabelSpaceHook', 'EpochSeedHook', 'InitialWeightsHook', 'MEGVIIEMA',
    'MEGVIIEMAHook', 'OperatorCounter', 'Stage', 'StageMeter', 'find_stages',
    'latest_checkpoint', 'set_start', 'start_processes'
]
