from radocc_plugin.structures.data_preprocessor import OccDataPreprocessor
from radocc_plugin.structures.occ_data_sample import OccData, OccDataSample

__all__ = ['OccData', 'OccDataPreprocessor', 'OccDataSample']
