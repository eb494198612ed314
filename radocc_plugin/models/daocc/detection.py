"""The detection head that assists the training of DAOcc."""

from typing import Dict, Sequence

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from radocc_plugin.datasets.old_infos import DETECTION_CLASSES
from radocc_plugin.registry import MODELS


def build_detection_head(config: dict) -> nn.Module:
    """mmdet3d's ``CenterHead`` of a config.

    Raises:
        ImportError: If mmdet3d is not installed.
        ValueError: If its tasks are not the detection classes of nuScenes.
    """
    try:
        import mmdet3d.models  # noqa: F401, registers the head
    except ImportError as error:
        raise ImportError(
            "detection_head needs mmdet3d (pip install 'radocc_plugin[teachers]'); "
            'detection_head=None trains without it'
        ) from error
    head = MODELS.build(config)
    names = sum(map(list, head.class_names), [])
    if sorted(names) != sorted(DETECTION_CLASSES):
        raise ValueError(
            f'detection_head.tasks takes each of {DETECTION_CLASSES} in one task, got {names}'
        )
    return head


def detection_losses(
    head: nn.Module, bev: Tensor, data_samples: Sequence, lidar_aug_mat: Tensor
) -> Dict[str, Tensor]:
    """Heatmap and box losses of a BEV map, in float32.

    Args:
        head: See :func:`build_detection_head`.
        bev: Map of the augmented LiDAR frame, shape (B, C, X, Y).
        data_samples: B samples with ``gt_instances_3d``, see
            ``LoadDetectionBoxes``.
        lidar_aug_mat: LiDAR to augmented LiDAR frame, shape (B, 4, 4).

    Raises:
        ValueError: If a sample has no boxes loaded.
    """
    from mmdet3d.structures import LiDARInstance3DBoxes

    # mmdet3d numbers the classes in the order of the tasks.
    names = sum(map(list, head.class_names), [])
    order = torch.tensor([names.index(name) for name in DETECTION_CLASSES], device=bev.device)
    instances = []
    for sample, matrix in zip(data_samples, lidar_aug_mat):
        if 'gt_instances_3d' not in sample:
            raise ValueError(
                f'detection_head takes gt_instances_3d, which sample {sample.get("token", "?")} '
                'lacks: put LoadDetectionBoxes into the training pipeline'
            )
        truth = sample.gt_instances_3d
        boxes = augment_boxes(truth.bboxes_3d, matrix)
        instances.append(
            InstanceData(
                bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9, origin=(0.5, 0.5, 0.5)),
                labels_3d=order[truth.labels_3d],
            )
        )
    # Its maps have rows along y.
    predictions = head([bev.transpose(2, 3)])
    with torch.autocast(bev.device.type, enabled=False):
        predictions = tuple(
            [{name: value.float() for name, value in level.items()} for level in task]
            for task in predictions
        )
        return head.loss_by_feat(predictions, instances)


def augment_boxes(boxes: Tensor, matrix: Tensor) -> Tensor:
    """Boxes in a rotated or mirrored frame.

    Args:
        boxes: Centre x, y, z, length, width, height (m), yaw (rad) and
            velocity x, y (m/s), shape (N, 9).
        matrix: Rotation about z and mirrors, without scale, (4, 4).
    """
    matrix = matrix.to(boxes)
    plane = matrix[:2, :2].T
    heading = torch.stack([boxes[:, 6].cos(), boxes[:, 6].sin()], 1) @ plane
    centres = boxes[:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
    yaw = torch.atan2(heading[:, 1], heading[:, 0])
    return torch.cat([centres, boxes[:, 3:6], yaw[:, None], boxes[:, 7:9] @ plane], 1)
