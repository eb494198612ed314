from radocc_plugin.structures.data_preprocessor import OccDataPreprocessor
from radocc_plugin.structures.occ_data_sample import (
    OccData,
    OccDataSample,
    check_use_mask,
    stack_mask,
)

__all__ = ['OccData', 'OccDataPreprocessor', 'OccDataSample', 'check_use_mask', 'stack_mask']
