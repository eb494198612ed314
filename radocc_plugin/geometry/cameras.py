"""Calibrated cameras of a batch and projection into them.

B batch, N cameras, P points.
"""

from dataclasses import dataclass
from typing import Sequence, Tuple, Union

import numpy as np
import torch
from torch import Tensor

from radocc_plugin.geometry.frames import invert, transform_points, upload


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
