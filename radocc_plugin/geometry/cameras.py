"""Calibrated cameras of a batch and projection into them.

B batch, N cameras, P points.
"""

import math
from dataclasses import dataclass, replace
from typing import Sequence, Tuple, Union

import numpy as np
import torch
from torch import Tensor

from radocc_plugin.geometry.frames import invert, transform_points, upload

VIEWS = ('sensor', 'elevated', 'above')
# How far a camera is raised, metres, and tilted towards the ground, radians.
ELEVATION, TILT = 3.0, math.radians(20)


@dataclass(frozen=True)
class Cameras:
    """Raw (un-augmented) cameras of a batch, as the renderer needs them.

    Args:
        cam2img: Pinhole intrinsics of the raw image in pixels, shape (B, N,
            3, 3); pixel centres lie at integer + 0.5.
        cam2ego: Camera to key-ego frame, shape (B, N, 4, 4).
        bda_mat: Key-ego to augmented-ego frame (flips, rotation, scale),
            shape (B, 4, 4); identity where there is no augmentation.
        image_size: Height and width of the raw images in pixels; a tensor
            (B, N, 2) where they differ.
    """

    cam2img: Tensor
    cam2ego: Tensor
    bda_mat: Tensor
    image_size: Union[Tuple[int, int], Tensor]

    def __post_init__(self) -> None:
        lead = self.cam2img.shape[:-2]
        expected = dict(cam2img=(*lead, 3, 3), cam2ego=(*lead, 4, 4), bda_mat=(*lead[:1], 4, 4))
        for name, shape in expected.items():
            got = tuple(getattr(self, name).shape)
            if len(lead) != 2 or got != tuple(shape):
                raise ValueError(
                    f'{name} takes shape {tuple(shape)} with (B, N) leading cam2img, got {got}'
                )

    @classmethod
    def from_data_samples(cls, data_samples: Sequence, device=None) -> 'Cameras':
        """Cameras from the metainfo of data samples, float32.

        Each sample needs ``cam2img`` (N, 3, 3), ``cam2ego`` (N, 4, 4) and
        ``ori_shape`` (H, W) in its metainfo; ``bda_mat`` (4, 4) is optional.

        Raises:
            ValueError: If a field is missing.
        """
        for sample in data_samples:
            for name in ('cam2img', 'cam2ego', 'ori_shape'):
                if name not in sample.metainfo:
                    raise ValueError(
                        f'data_samples lack the metainfo {name!r}; add it to '
                        'meta_keys of the packing transform (have '
                        f'{sorted(sample.metainfo)})'
                    )
        sizes = [(s.metainfo['ori_shape'][0], s.metainfo['ori_shape'][1]) for s in data_samples]
        image_size: Union[Tuple[int, int], Tensor] = sizes[0]
        if len(set(sizes)) > 1:
            num_cameras = len(data_samples[0].metainfo['cam2img'])
            image_size = upload(torch.tensor(sizes), device)[:, None].expand(-1, num_cameras, -1)

        def stack(name: str) -> Tensor:
            values = [np.asarray(s.metainfo.get(name, np.eye(4)), np.float32) for s in data_samples]
            return upload(torch.from_numpy(np.stack(values)), device)

        return cls(stack('cam2img'), stack('cam2ego'), stack('bda_mat'), image_size)

    @property
    def image_sizes(self) -> Tensor:
        """Height and width of each raw image in pixels, (B, N, 2)."""
        size = torch.as_tensor(self.image_size, device=self.cam2img.device)
        return size.expand(*self.cam2img.shape[:2], 2)

    def select(self, sample: int) -> 'Cameras':
        """The cameras of one sample, batch size 1."""
        own = slice(sample, sample + 1)
        return Cameras(
            self.cam2img[own], self.cam2ego[own], self.bda_mat[own], self.image_sizes[own]
        )

    @property
    def cam2aug_ego(self) -> Tensor:
        """Camera to augmented-ego frame, shape (B, N, 4, 4)."""
        # Float64 here and below: autocast and TF32 leave it alone.
        matrix = self.bda_mat[:, None].double() @ self.cam2ego.double()
        return matrix.to(self.cam2ego.dtype)

    def project(self, points: Tensor) -> Tuple[Tensor, Tensor]:
        """Pixels and depths of augmented-ego points in every camera.

        Args:
            points: Points, shape (B, P, 3), metres.

        Returns:
            Pixel coordinates (u, v) of the raw image, shape (B, N, P, 2), and
            projection depth in metres, shape (B, N, P). Points behind a
            camera have depth <= 0 and meaningless pixels.
        """
        ego2cam = invert(self.cam2aug_ego)
        in_camera = transform_points(ego2cam, points[:, None].expand(-1, ego2cam.shape[1], -1, -1))
        depth = in_camera[..., 2]
        homogeneous = in_camera.double() @ self.cam2img.double().transpose(-1, -2)
        pixels = homogeneous[..., :2] / depth[..., None]
        return pixels.to(points.dtype), depth


def input_cameras(raw: Cameras, data_samples: Sequence) -> Cameras:
    """Cameras of the network's input images.

    Args:
        raw: Those of the raw images.
        data_samples: Samples with ``img_aug_mat`` (N, 4, 4), raw to augmented
            pixels.

    Raises:
        ValueError: If a sample lacks it.
    """
    for sample in data_samples:
        if 'img_aug_mat' not in sample.metainfo:
            raise ValueError(
                "data_samples lack the metainfo 'img_aug_mat'; add it to meta_keys of the packing "
                f'transform (have {sorted(sample.metainfo)})'
            )
    matrices = [np.asarray(s.metainfo['img_aug_mat'], np.float64) for s in data_samples]
    augment = upload(torch.from_numpy(np.stack(matrices)), raw.cam2img.device)
    cam2img = augmented_cam2img(raw.cam2img.double(), augment)
    return replace(raw, cam2img=cam2img.to(raw.cam2img.dtype))


def augmented_cam2img(cam2img: Tensor, img_aug_mat: Tensor) -> Tensor:
    """Projection of cameras onto their augmented images, (..., 3, 3).

    Args:
        cam2img: Intrinsics of the raw images, (..., 3, 3).
        img_aug_mat: Raw to augmented pixel: acts on (u, v, depth, 1), (..., 4, 4).
    """
    return img_aug_mat[..., [0, 1, 3]][..., [0, 1, 3], :] @ cam2img


def camera_views(
    cameras: Cameras, views: Sequence[str], point_cloud_range: Sequence[float]
) -> Cameras:
    """The cameras of a rig, virtual ones, or both.

    Virtual cameras see what occlusion hides from the rig. GaussRender (arXiv
    2502.05040) supervises rendered labels from such.

    Args:
        cameras: Cameras of the batch, (B, N).
        views: Of ``VIEWS``, in this order: ``'sensor'``, the cameras as they
            are; ``'elevated'``, each raised by 3 m and tilted down by 20
            degrees; ``'above'``, one camera that looks down on all of the
            range.
        point_cloud_range: ``(x0, y0, z0, x1, y1, z1)``, metres.

    Returns:
        Cameras (B, M) with one image size a sample where it was one.

    Raises:
        ValueError: If there is no view, or an unknown one.
    """
    if not views or not set(views) <= set(VIEWS):
        raise ValueError(f'views take some of {VIEWS}, got {tuple(views)}')
    parts = []
    if 'sensor' in views:
        parts.append((cameras.cam2img, cameras.cam2ego, cameras.image_sizes))
    if 'elevated' in views:
        parts.append((cameras.cam2img, _elevated(cameras.cam2ego), cameras.image_sizes))
    if 'above' in views:
        sizes = cameras.image_sizes[:, :1]
        parts.append((*_above(cameras, sizes, point_cloud_range), sizes))
    cam2img, cam2ego, sizes = (torch.cat(part, 1) for part in zip(*parts))
    image_size = sizes if torch.is_tensor(cameras.image_size) else cameras.image_size
    return Cameras(cam2img, cam2ego, cameras.bda_mat, image_size)


def _elevated(cam2ego: Tensor) -> Tensor:
    """Raised along the z axis of the ego frame, turned about the camera's x
    axis, which points to the right."""
    cos, sin = math.cos(TILT), math.sin(TILT)
    tilt = cam2ego.new_tensor([[1, 0, 0, 0], [0, cos, sin, 0], [0, -sin, cos, 0], [0, 0, 0, 1]])
    raised = (cam2ego.double() @ tilt.double()).to(cam2ego.dtype)
    raised[..., 2, 3] += ELEVATION
    return raised


def _above(
    cameras: Cameras, sizes: Tensor, point_cloud_range: Sequence[float]
) -> Tuple[Tensor, Tensor]:
    """Intrinsics and pose of a camera at half the range's extent above it,
    whose image is the range's upper face: image right is y down, image up is
    x up."""
    x0, y0, _, x1, y1, z1 = point_cloud_range
    height = max(x1 - x0, y1 - y0) / 2
    pose = cameras.cam2ego.new_tensor(
        [
            [0, -1, 0, (x0 + x1) / 2],
            [-1, 0, 0, (y0 + y1) / 2],
            [0, 0, -1, z1 + height],
            [0, 0, 0, 1],
        ]
    )
    rows, columns = sizes.to(cameras.cam2img.dtype).unbind(-1)
    cam2img = cameras.cam2img.new_zeros(*sizes.shape[:2], 3, 3)
    cam2img[..., 0, 0] = columns * height / (y1 - y0)
    cam2img[..., 1, 1] = rows * height / (x1 - x0)
    cam2img[..., 0, 2] = columns / 2
    cam2img[..., 1, 2] = rows / 2
    cam2img[..., 2, 2] = 1
    return cam2img, pose.expand(*sizes.shape[:2], 4, 4)
