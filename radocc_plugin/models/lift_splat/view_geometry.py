"""Calibration of the network's input images, and points lifted from them.

B batch, N cameras, T frames, D depth bins, H W feature map.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Optional, Sequence

import numpy as np
import torch
from torch import Tensor

from radocc_plugin.geometry import to_homogeneous, transform_points
from radocc_plugin.geometry.cameras import augmented_cam2img

SHAPES = dict(cam2img=(3, 3), cam2ego=(4, 4), img_aug_mat=(4, 4), bda_mat=(4, 4))


@dataclass(frozen=True, eq=False)
class ViewGeometry:
    """Cameras and augmentations of a batch, as ``docs/conventions.md`` says.

    The matrices stay on the CPU in float64; what is made of them goes where
    it is used. Two geometries that lift points to the same places are equal,
    so that what is computed from one can be kept for the next (see
    ``plan_lift``).

    Args:
        cam2img: Intrinsics of the raw images, shape (B, N, 3, 3).
        cam2ego: Camera to key ego, shape (B, N, 4, 4).
        img_aug_mat: Raw to augmented pixel, as BEVDet's ``post_rot`` and
            ``post_tran``: acts on (u, v, depth, 1), shape (B, N, 4, 4).
        bda_mat: Key ego to augmented ego, shape (B, 4, 4).
        key_cam2ego: ``cam2ego`` of the key frame where this is an earlier
            one; the camera-aware depth net is told this one, as published.
    """

    cam2img: Tensor
    cam2ego: Tensor
    img_aug_mat: Tensor
    bda_mat: Tensor
    key_cam2ego: Optional[Tensor] = None

    @classmethod
    def from_data_samples(cls, data_samples: Sequence) -> 'ViewGeometry':
        """Geometry of the key frame from the metainfo of data samples.

        Raises:
            ValueError: If a matrix is missing or has a wrong shape.
        """
        return cls(**{name: _stack(data_samples, name) for name in SHAPES})

    def earlier(self, cam2ego: Tensor) -> 'ViewGeometry':
        """The same cameras in an earlier frame.

        Args:
            cam2ego: Camera of that frame to the *current* key ego, shape (B,
                N, 4, 4): it contains the ego motion, so that what is lifted
                from it lies in the same augmented-ego frame.
        """
        return replace(self, cam2ego=cam2ego, key_cam2ego=self._told_cam2ego)

    @property
    def _told_cam2ego(self) -> Tensor:
        return self.cam2ego if self.key_cam2ego is None else self.key_cam2ego

    @cached_property
    def content(self) -> tuple:
        """The matrices that place lifted points, as bytes."""
        return tuple(getattr(self, name).numpy().tobytes() for name in SHAPES)

    def __eq__(self, other) -> bool:
        return isinstance(other, ViewGeometry) and self.content == other.content

    def __hash__(self) -> int:
        return hash(self.content)

    def augmented_cam2img(self) -> Tensor:
        """Projection of a camera onto its augmented image, (B, N, 3, 3)."""
        return augmented_cam2img(self.cam2img, self.img_aug_mat)

    def cam2augmented_ego(self) -> Tensor:
        """Camera to augmented ego, shape (B, N, 4, 4)."""
        return self.bda_mat[:, None] @ self.cam2ego

    def lift(self, frustum: Tensor) -> Tensor:
        """Points of a frustum in the augmented-ego frame.

        Args:
            frustum: Augmented pixels and depths (u, v, d), shape (D, H, W, 3).

        Returns:
            Points in metres, shape (B, N, D, H, W, 3), dtype of ``frustum``.
        """
        cam2ego = self.cam2augmented_ego()
        pixel2ego = cam2ego[..., :3, :3] @ torch.linalg.inv(self.augmented_cam2img())
        affine = to_homogeneous(pixel2ego)
        affine[..., :3, 3] = cam2ego[..., :3, 3]
        depth = frustum[..., 2:]
        scaled = torch.cat([frustum[..., :2] * depth, depth], dim=-1)
        points = transform_points(affine.to(frustum), scaled.reshape(1, 1, -1, 3))
        return points.unflatten(-2, frustum.shape[:3])

    def depth_net_input(self) -> Tensor:
        """What the camera-aware depth net is told, shape (B, N, 27), float32.

        fx, fy, cx, cy, the image augmentation (2 x 2 and its shift, row by
        row), five entries of the BDA matrix, then the upper 3 x 4 part of
        the key frame's ``cam2ego``: ``mlp_input`` of BEVDet dev2.1.
        """
        image = self.img_aug_mat
        bda = self.bda_mat[:, None].expand_as(image)
        entries = [
            self.cam2img[..., 0, 0],
            self.cam2img[..., 1, 1],
            self.cam2img[..., 0, 2],
            self.cam2img[..., 1, 2],
            image[..., 0, 0],
            image[..., 0, 1],
            image[..., 0, 3],
            image[..., 1, 0],
            image[..., 1, 1],
            image[..., 1, 3],
            bda[..., 0, 0],
            bda[..., 0, 1],
            bda[..., 1, 0],
            bda[..., 1, 1],
            bda[..., 2, 2],
        ]
        return torch.cat(
            [torch.stack(entries, dim=-1), self._told_cam2ego[..., :3, :].flatten(-2)], dim=-1
        ).float()


def _stack(data_samples: Sequence, name: str) -> Tensor:
    values = stack_metainfo(data_samples, name)
    takes = SHAPES[name] if name == 'bda_mat' else ('N', *SHAPES[name])
    got = values.shape[1:]
    if len(got) != len(takes) or got[-2:] != SHAPES[name]:
        raise ValueError(
            f'{name} of a data sample takes shape ({", ".join(map(str, takes))}), got {got}'
        )
    return torch.from_numpy(values)


def stack_metainfo(data_samples: Sequence, name: str) -> np.ndarray:
    """An array of each sample's metainfo, shape (B, ...), float64.

    Raises:
        ValueError: If a sample lacks it.
    """
    for sample in data_samples:
        if name not in sample.metainfo:
            raise ValueError(
                f'data_samples lack the metainfo {name!r}; add it to '
                'meta_keys of the packing transform (have '
                f'{sorted(sample.metainfo)})'
            )
    return np.stack([np.asarray(sample.metainfo[name], np.float64) for sample in data_samples])
