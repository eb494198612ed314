"""The frames of a batch, as the model goes through them.

B batch, A adjacent frames, N cameras.
"""

from typing import List, NamedTuple, Optional, Sequence

import numpy as np
import torch
from torch import Tensor

from radocc_plugin.models.lift_splat.view_geometry import ViewGeometry, stack_metainfo


class Frame(NamedTuple):
    """Images at one time, of those samples of a batch that have some.

    Args:
        images: Shape (b, N, 3, H, W), normalised.
        ego2img: Augmented ego frame of this time to network input, see
            ``project_pillars``, float64, on the CPU, shape (b, N, 4, 4).
        can_bus: Absolute CAN bus vectors, shape (b, 18).
        bda_mat: Ego to augmented ego, shape (b, 4, 4).
        rows: Which of the B samples these are, ascending, shape (b,).
    """

    images: Tensor
    ego2img: Tensor
    can_bus: np.ndarray
    bda_mat: np.ndarray
    rows: np.ndarray


def current_frame(imgs: Tensor, data_samples: Sequence) -> Frame:
    """The current frame of a batch.

    Args:
        imgs: Shape (B, N, 3, H, W).
        data_samples: Samples with ``cam2img``, ``cam2ego``, ``img_aug_mat``,
            ``bda_mat`` and ``can_bus`` in their metainfo.

    Raises:
        ValueError: If one is missing, or images and matrices do not fit.
    """
    geometry = ViewGeometry.from_data_samples(data_samples)
    if imgs.shape[:2] != geometry.cam2img.shape[:2]:
        raise ValueError(
            'imgs take (B, N, ...) as cam2img has it, '
            f'{tuple(geometry.cam2img.shape[:2])}, got {tuple(imgs.shape)}'
        )
    return Frame(
        imgs,
        _ego2img(geometry),
        _stack_can_bus(data_samples, 'can_bus'),
        geometry.bda_mat.numpy(),
        np.arange(len(imgs)),
    )


def past_frames(adjacent_imgs: Optional[Tensor], data_samples: Sequence) -> List[Frame]:
    """The frames of a training queue before the current one, oldest first.

    Frames that do not exist, since the scene had not begun, are left out.

    Args:
        adjacent_imgs: Newest first, shape (B, A, N, 3, H, W); None for none.
        data_samples: Samples with ``adjacent_exists``, ``adjacent_cam2ego``,
            ``adjacent_ego2global``, ``adjacent_can_bus`` and ``ego2global``
            beside what :func:`current_frame` takes.

    Raises:
        ValueError: If one is missing.
    """
    if adjacent_imgs is None:
        return []
    geometry = ViewGeometry.from_data_samples(data_samples)
    exists, cam2ego, own_ego2global, ego2global = (
        stack_metainfo(data_samples, name)
        for name in ('adjacent_exists', 'adjacent_cam2ego', 'adjacent_ego2global', 'ego2global')
    )
    can_bus = _stack_can_bus(data_samples, 'adjacent_can_bus')
    # adjacent_cam2ego leads to the ego frame of the current keyframe
    current2own = np.linalg.inv(own_ego2global) @ ego2global[:, None]
    cam2own = torch.from_numpy(current2own[:, :, None] @ cam2ego)
    frames = []
    for index in reversed(range(adjacent_imgs.shape[1])):
        rows = np.flatnonzero(exists[:, index])
        if len(rows):
            ego2img = _ego2img(geometry.earlier(cam2own[:, index]))
            frames.append(
                Frame(
                    adjacent_imgs[rows, index],
                    ego2img[rows],
                    can_bus[rows, index],
                    geometry.bda_mat.numpy()[rows],
                    rows,
                )
            )
    return frames


def _ego2img(geometry: ViewGeometry) -> Tensor:
    ego2img = torch.linalg.inv(geometry.cam2augmented_ego())
    ego2img[..., :3, :] = geometry.augmented_cam2img() @ ego2img[..., :3, :]
    return ego2img


def _stack_can_bus(data_samples: Sequence, name: str) -> np.ndarray:
    if any(name not in sample.metainfo for sample in data_samples):
        raise ValueError(
            f'data_samples lack the metainfo {name!r}; set '
            "can_bus='measured' or 'poses' of the dataset"
        )
    return stack_metainfo(data_samples, name)
