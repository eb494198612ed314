"""Camera rays in the augmented ego frame.

B batch, N cameras, h w render size, R rays.
"""

from dataclasses import dataclass, replace
from typing import Tuple

import torch
from torch import Tensor

from radocc_plugin.geometry.cameras import Cameras
from radocc_plugin.geometry.frames import invert


@dataclass(frozen=True)
class Rays:
    """Rays of a batch, packed sample by sample.

    Args:
        origins: Camera centres in the augmented ego frame, metres, (R, 3).
        directions: Directions with camera z = 1, so that the ray parameter is
            projection depth in metres, (R, 3).
        sample: Batch index, int64, (R,).
        camera: Camera index, int64, (R,).
        pixel: Row-major pixel index in the render of the camera, int64, (R,).
        render_size: Height and width of the render in pixels.
    """

    origins: Tensor
    directions: Tensor
    sample: Tensor
    camera: Tensor
    pixel: Tensor
    render_size: Tuple[int, int]

    def __len__(self) -> int:
        return len(self.origins)

    def select(self, index: Tensor) -> 'Rays':
        """Some of the rays, or all in another order."""
        return replace(
            self,
            **{
                name: getattr(self, name)[index]
                for name in ('origins', 'directions', 'sample', 'camera', 'pixel')
            },
        )

    def gather_maps(self, maps: Tensor) -> Tensor:
        """Value of per-image maps at each ray, nearest neighbour.

        Args:
            maps: Maps that cover the raw images at any resolution, such as
                segments or depth, (B, N, h, w).

        Returns:
            Values, (R,).
        """
        if maps.dim() != 4:
            raise ValueError(f'maps take shape (B, N, h, w), got {tuple(maps.shape)}')
        height, width = self.render_size
        row = torch.div(self.pixel, width, rounding_mode='floor')
        row = ((row + 0.5) * maps.shape[2] / height).long()
        column = ((self.pixel % width + 0.5) * maps.shape[3] / width).long()
        return maps[self.sample, self.camera, row, column]


def pixel_centres(image_size: Tuple[int, int], render_size: Tuple[int, int], device=None) -> Tensor:
    """Centres of the render's pixels in raw-image pixels.

    Args:
        image_size: Height and width of the raw image.
        render_size: Height and width of the render that covers it.
        device: Device of the result.

    Returns:
        (u, v) of each render pixel, row-major, shape (h * w, 2).
    """
    height, width = render_size
    v = (torch.arange(height, device=device) + 0.5) * image_size[0] / height
    u = (torch.arange(width, device=device) + 0.5) * image_size[1] / width
    v, u = torch.meshgrid(v, u, indexing='ij')
    return torch.stack((u, v), dim=-1).flatten(0, 1)


def rays_through(
    cameras: Cameras, sample: Tensor, camera: Tensor, pixels: Tensor
) -> Tuple[Tensor, Tensor]:
    """Rays through given points of the raw images.

    Args:
        cameras: Cameras of the batch.
        sample: Batch index of each ray, int64, (R,).
        camera: Camera index of each ray, int64, (R,).
        pixels: (u, v) in raw-image pixels, (R, 2).

    Returns:
        Origins and directions (camera z = 1) in the augmented ego frame,
        float32, (R, 3) each.
    """
    # In float64, which autocast and TF32 leave alone; a float32 inverse of K
    # alone shifts far rays.
    cam2ego = cameras.cam2aug_ego.double()
    to_direction = cam2ego[..., :3, :3] @ invert(cameras.cam2img.double())
    uv1 = torch.cat((pixels, torch.ones_like(pixels[:, :1])), dim=-1).double()
    directions = torch.einsum('rij,rj->ri', to_direction[sample, camera], uv1)
    return cam2ego[sample, camera, :3, 3].float(), directions.float()


def rays_of_pixels(cameras: Cameras, render_size: Tuple[int, int], index: Tensor) -> Rays:
    """Rays through the centres of chosen pixels of the render.

    Args:
        cameras: Cameras of the batch.
        render_size: Height and width of the render of each camera.
        index: Flat index (batch, camera, row, column) of each ray, (R,).

    Returns:
        Rays in float32, in the order of ``index``.
    """
    height, width = render_size
    num_cameras = cameras.cam2img.shape[1]
    pixel = index % (height * width)
    camera = index // (height * width) % num_cameras
    sample = index // (height * width * num_cameras)
    row = torch.div(pixel, width, rounding_mode='floor')
    size = cameras.image_size
    rows, columns = size[sample, camera].t() if torch.is_tensor(size) else size
    centre = torch.stack(
        ((pixel % width + 0.5) / width * columns, (row + 0.5) / height * rows), dim=-1
    )
    origins, directions = rays_through(cameras, sample, camera, centre)
    return Rays(origins, directions, sample, camera, pixel, (height, width))
