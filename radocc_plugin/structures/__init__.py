from radocc_plugin.structures.occ_data_sample import OccData, OccDataSample

__all__ = ['OccData', 'OccDataSample']
