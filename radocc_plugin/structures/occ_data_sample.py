"""What a sample knows besides its network inputs."""

from typing import Optional, Sequence, Union

import torch
from mmengine.structures import BaseDataElement


class _PinnedByLoaders(BaseDataElement):
    """Has what a DataLoader with ``pin_memory=True`` asks for."""

    def pin_memory(self) -> '_PinnedByLoaders':
        """A copy whose tensors lie in page-locked memory."""
        pinned = self.new()
        for name, value in self.items():
            if hasattr(value, 'pin_memory'):
                pinned.set_field(value.pin_memory(), name)
        return pinned


class OccData(_PinnedByLoaders):
    """An occupancy volume: labels and visibility masks, shape (X, Y, Z) each.

    Fields: ``semantics`` (uint8, Occ3D classes, 17 free), ``mask_camera`` and
    ``mask_lidar`` (bool, optional).
    """

    def set_field(self, value, name: str, dtype=None, field_type: str = 'data') -> None:
        """Sets a field after checking that it fits the volume."""
        if field_type == 'data' and isinstance(value, torch.Tensor):
            if value.dim() != 3:
                raise ValueError(f'{name} takes a volume (X, Y, Z), got shape {tuple(value.shape)}')
            for other, volume in self.items():
                if volume.shape != value.shape:
                    raise ValueError(
                        f'{name} has shape {tuple(value.shape)} but {other} '
                        f'has {tuple(volume.shape)}'
                    )
        super().set_field(value, name, dtype=dtype, field_type=field_type)


class OccDataSample(_PinnedByLoaders):
    """Labels, predictions and calibration of one keyframe.

    Data fields, each optional:
        gt_occ (OccData): Ground truth in the augmented-ego frame.
        pred_occ (OccData): Prediction; ``semantics`` only.
        gt_depth (Tensor): LiDAR depth seen by each augmented image in metres,
            0 where there is no return, shape (N, H, W).
        segments (Tensor): Segment ids of each *raw* image at some resolution,
            0 = no segment, shape (N, h, w).
        gt_instances_3d (InstanceData): Boxes of objects, see
            ``LoadDetectionBoxes``.

    Metainfo: ``token``, ``scene_name``, ``cam_names``, ``img_path``,
    ``lidar_path``, ``cam2img`` (N, 3, 3) and ``ori_shape`` (H, W) of the raw
    images, ``cam2ego`` (N, 4, 4), ``img_aug_mat`` (N, 4, 4; raw pixel to
    augmented pixel), ``img_shape`` (H, W) of the network input, ``bda_mat``
    (4, 4), ``ego2global`` (4, 4), ``lidar2ego`` (4, 4); more for models that
    look back in time, see ``docs/data.md``.
    """

    gt_occ: Optional[OccData]
    pred_occ: Optional[OccData]


TRAINING_MASKS = dict(camera=('camera',), lidar=('lidar',), both=('camera', 'lidar'))


def check_use_mask(use_mask: Union[bool, str], owner: str) -> Union[bool, str]:
    """The argument ``use_mask`` of a head: ``True`` (camera), ``False``, or a
    name of ``TRAINING_MASKS``.

    Raises:
        ValueError: If it is none of them; names the owner.
    """
    if not isinstance(use_mask, bool) and use_mask not in TRAINING_MASKS:
        raise ValueError(
            f'{owner}.use_mask takes True (the same as camera), False or one of '
            f'{tuple(TRAINING_MASKS)}, got {use_mask!r}'
        )
    return use_mask


def stack_mask(data_samples: Sequence[OccDataSample], use_mask: Union[bool, str]):
    """Which voxels a loss counts, bool, (B, X, Y, Z); None for all.

    Args:
        data_samples: B samples with ``gt_occ``.
        use_mask: Voxels that a camera saw (``True`` or ``'camera'``), the
            LiDAR, or both of them; ``False`` for all.

    Raises:
        ValueError: If a sample's labels come without the mask.
    """
    if use_mask is False:
        return None
    masks = []
    for name in TRAINING_MASKS['camera' if use_mask is True else use_mask]:
        field = f'mask_{name}'
        for sample in data_samples:
            if field not in sample.gt_occ:
                raise ValueError(
                    f'use_mask={use_mask!r} needs gt_occ.{field}, which sample '
                    f'{sample.get("token", "?")} lacks'
                )
        masks.append(torch.stack([sample.gt_occ.get(field) for sample in data_samples]))
    return masks[0] if len(masks) == 1 else masks[0].bool() & masks[1].bool()
