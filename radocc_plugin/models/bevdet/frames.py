"""The frames of a batch, as the model goes through them.

B batch, N cameras, A adjacent frames.
"""

from typing import List, NamedTuple, Optional, Sequence

import torch
from torch import Tensor

from radocc_plugin.models.lift_splat.view_geometry import ViewGeometry, stack_metainfo


class Frame(NamedTuple):
    """Images of all cameras at one time.

    Args:
        images: Shape (B * N, 3, H, W), normalised.
        geometry: Their calibration; every frame is calibrated to the current
            key ego.
    """

    images: Tensor
    geometry: ViewGeometry


def split_frames(
    imgs: Tensor,
    data_samples: Sequence,
    num_frames: int = 1,
    adjacent_imgs: Optional[Tensor] = None,
) -> List[Frame]:
    """The current frame of a batch and those before it, newest first.

    A batch may hold more frames than asked for (its teacher may look further
    back than the student); those are left out.

    Args:
        imgs: The current frame, shape (B, N, 3, H, W).
        data_samples: Samples with the metainfo of ``ViewGeometry`` and, for
            more than one frame, ``adjacent_cam2ego`` (A, N, 4, 4): each
            earlier frame's cameras to the *current* key ego. All frames of a
            camera share intrinsics and image augmentation.
        num_frames: Frames to return.
        adjacent_imgs: Earlier frames, newest first, shape (B, A, N, 3, H, W).

    Raises:
        ValueError: If there are fewer frames, or images and matrices do not
            fit.
    """
    geometry = ViewGeometry.from_data_samples(data_samples)
    if imgs.shape[:2] != geometry.cam2img.shape[:2]:
        raise ValueError(
            'imgs take (B, N, ...) as cam2img has it, '
            f'{tuple(geometry.cam2img.shape[:2])}, got {tuple(imgs.shape)}'
        )
    frames = [Frame(imgs.flatten(0, 1), geometry)]
    if num_frames == 1:
        return frames
    available = 0 if adjacent_imgs is None else adjacent_imgs.shape[1]
    if available < num_frames - 1:
        raise ValueError(
            f'the model takes {num_frames - 1} adjacent frames, adjacent_imgs '
            f'hold {available}; set adjacent of the dataset'
        )
    cam2ego = stack_metainfo(data_samples, 'adjacent_cam2ego')
    expected = (len(imgs), available, *geometry.cam2ego.shape[1:])
    if cam2ego.shape != expected:
        raise ValueError(
            f'adjacent_cam2ego of a data sample takes shape {expected[1:]}, got {cam2ego.shape[1:]}'
        )
    for index in range(num_frames - 1):
        frames.append(
            Frame(
                adjacent_imgs[:, index].flatten(0, 1),
                geometry.earlier(torch.from_numpy(cam2ego[:, index])),
            )
        )
    return frames
