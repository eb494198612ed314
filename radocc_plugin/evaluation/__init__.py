from radocc_plugin.evaluation.dump import (
    DumpPredictions,
    prediction_path,
    read_prediction,
    write_prediction,
)
from radocc_plugin.evaluation.lidar_origins import scene_lidar_origins
from radocc_plugin.evaluation.lidarseg_metric import (
    LidarSegMetric,
    count_points,
    lidarseg_scores,
    read_labelled_points,
)
from radocc_plugin.evaluation.likelihood import OccLikelihood, negative_log_likelihood
from radocc_plugin.evaluation.occ_metric import OccMetric, confusion_matrix, ring_mask, scores
from radocc_plugin.evaluation.lidar_rays import RayHits, cast_rays, lidar_directions
from radocc_plugin.evaluation.ray_iou import RayIoU, count_rays, ray_scores
from radocc_plugin.evaluation.records import config_hash, make_record, read_records, write_record
from radocc_plugin.evaluation.tta import OccTTAModel, tta_pipeline

__all__ = [
    'DumpPredictions',
    'LidarSegMetric',
    'OccLikelihood',
    'OccMetric',
    'OccTTAModel',
    'RayHits',
    'RayIoU',
    'cast_rays',
    'config_hash',
    'confusion_matrix',
    'count_points',
    'count_rays',
    'lidar_directions',
    'lidarseg_scores',
    'make_record',
    'negative_log_likelihood',
    'prediction_path',
    'ray_scores',
    'read_labelled_points',
    'read_prediction',
    'read_records',
    'ring_mask',
    'scene_lidar_origins',
    'scores',
    'tta_pipeline',
    'write_prediction',
    'write_record',
]
