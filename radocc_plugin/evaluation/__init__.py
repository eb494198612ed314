from radocc_plugin.evaluation.occ_metric import (OccMetric, confusion_matrix,
                                                 scores)
from radocc_plugin.evaluation.records import (config_hash, make_record,
                                              read_records, write_record)

__all__ = [
    'OccMetric', 'config_hash', 'confusion_matrix', 'make_record',
    'read_records', 'scores', 'write_record'
]
