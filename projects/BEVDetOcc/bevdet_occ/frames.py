"""The frames of a batch: what the pipeline packs and the model takes apart.

B batch, N cameras, T frames.
"""
from typing import List, NamedTuple, Sequence

import torch
from torch import Tensor

from .view_geometry import ViewGeometry, stack_metainfo


class Frame(NamedTuple):
    """Images of all cameras at one time.

    Args:
        images: Shape (B * N, 3, H, W), normalised.
        geometry: Their calibration; every frame is calibrated to the current
            key ego.
    """
    images: Tensor
    geometry: ViewGeometry


def split_frames(imgs: Tensor, data_samples: Sequence,
                 num_frames: int) -> List[Frame]:
    """The current frame of a batch and those before it, newest first.

    A batch may hold more frames than asked for (its teacher may look further
    back than the student); those are left out.

    Args:
        imgs: Camera-major, as in the published code: frame t of camera n has
            index ``n * T + t``, t = 0 is the current one; shape (B, N * T, 3,
            H, W).
        data_samples: Samples with the metainfo of ``ViewGeometry`` and, for
            more than one frame, ``adjacent_cam2ego`` (T - 1, N, 4, 4): each
            earlier frame's cameras to the *current* key ego, newest first.
            All frames of a camera share intrinsics and image augmentation.
        num_frames: Frames to return.

    Raises:
        ValueError: If there are fewer frames, or the numbers of cameras and
            images do not fit.
    """
    geometry = ViewGeometry.from_data_samples(data_samples, imgs.device)
    cameras = geometry.cam2img.shape[1]
    available, rest = divmod(imgs.shape[1], cameras)
    if rest:
        raise ValueError(f'imgs take a multiple of {cameras} cameras '
                         f'(cam2img), got {imgs.shape[1]} images')
    if available < num_frames:
        raise ValueError(
            f'the model takes {num_frames} frames, imgs hold {available}; '
            'let the dataset load more adjacent frames')
    images = imgs.unflatten(1, (cameras, available))
    frames = [Frame(images[:, :, 0].flatten(0, 1), geometry)]
    if num_frames == 1:
        return frames
    earlier = stack_metainfo(data_samples, 'adjacent_cam2ego')
    if earlier.shape[1:] != (available - 1, cameras, 4, 4):
        raise ValueError(
            'adjacent_cam2ego of a data sample takes shape '
            f'{(available - 1, cameras, 4, 4)}, got {earlier.shape[1:]}')
    for t in range(1, num_frames):
        cam2ego = torch.from_numpy(earlier[:, t - 1])
        frames.append(
            Frame(images[:, :, t].flatten(0, 1), geometry.earlier(cam2ego)))
    return frames
