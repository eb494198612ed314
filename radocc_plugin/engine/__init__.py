from radocc_plugin.engine.ema import MEGVIIEMA, MEGVIIEMAHook
from radocc_plugin.engine.label_space import CheckLabelSpaceHook
from radocc_plugin.engine.operators import OperatorCounter
from radocc_plugin.engine.stages import Stage, StageMeter, find_stages

__all__ = [
    'CheckLabelSpaceHook', 'MEGVIIEMA', 'MEGVIIEMAHook', 'OperatorCounter',
    'Stage', 'StageMeter',
    'find_stages'
]
