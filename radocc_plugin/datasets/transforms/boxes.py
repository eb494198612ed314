"""Boxes of objects, for detection heads that assist a training."""

import numpy as np
from mmcv.transforms import BaseTransform

from radocc_plugin.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadDetectionBoxes(BaseTransform):
    """The boxes of the detection classes that a LiDAR or radar point is in.

    Adds ``gt_instances_3d``, in the LiDAR frame: ``bboxes_3d`` (N, 9) float32,
    centre x, y, z, length, width, height (m), yaw (rad) and velocity x, y (m/s;
    0 where it is not known); ``labels_3d`` (N,) int64, indices of
    ``DETECTION_CLASSES``.

    Raises:
        ValueError: If the infos have no boxes.
    """

    def transform(self, results: dict) -> dict:
        if 'instances' not in results:
            raise ValueError(
                'LoadDetectionBoxes takes infos with instances, which sample '
                f'{results.get("token", "?")} lacks; write the info file again with '
                'tools/create_data.py'
            )
        valid = [
            instance
            for instance in results['instances']
            if instance['bbox_label_3d'] >= 0 and instance.get('bbox_3d_isvalid', True)
        ]
        boxes = [[*b['bbox_3d'], *b.get('velocity', (0, 0))] for b in valid]
        results['gt_instances_3d'] = dict(
            bboxes_3d=np.nan_to_num(np.array(boxes, np.float32).reshape(-1, 9)),
            labels_3d=np.array([instance['bbox_label_3d'] for instance in valid], np.int64),
        )
        return results
