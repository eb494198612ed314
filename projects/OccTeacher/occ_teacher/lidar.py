"""LiDAR points as voxel features and as depth maps."""
from typing import Sequence, Tuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from projects.BEVDetOcc.bevdet_occ import ViewGeometry
from radocc_plugin.geometry import VoxelGrid, transform_points
from radocc_plugin.registry import MODELS


@MODELS.register_module()
class VoxelMean(BaseModule):
    """Mean of the points of each voxel on a dense grid.

    Every point counts (no cap), and points are summed in their order in the
    cloud, so the result is the same in every run on CPU and CUDA. Has no
    parameters.

    Args:
        point_cloud_range: ``(x0, y0, z0, x1, y1, z1)`` in metres of the
            augmented-ego frame.
        voxel_size: Edge of a voxel in metres.
    """

    # offset from the voxel's centre in voxels (3), intensity in [0, 1],
    # seconds before the keyframe, log(1 + number of points)
    out_channels = 6

    def __init__(self, point_cloud_range: Sequence[float],
                 voxel_size: float) -> None:
        super().__init__()
        self.grid = VoxelGrid.from_voxel_size(point_cloud_range, voxel_size)

    def forward(self, points: Sequence[Tensor]) -> Tensor:
        """Voxel features of B clouds.

        Args:
            points: x, y, z in metres, intensity in [0, 255], seconds before
                the keyframe, shape (P, 5) each.

        Returns:
            Shape (B, 6, Z, Y, X), float32; zero in empty voxels.
        """
        nx, ny, nz = self.grid.shape
        volume = torch.stack([self._voxelise(cloud) for cloud in points])
        volume = volume.view(len(points), nx, ny, nz, self.out_channels)
        return volume.permute(0, 4, 3, 2, 1)

    def _voxelise(self, points: Tensor) -> Tensor:
        """Features (X * Y * Z, 6) of one cloud."""
        if points.dim() != 2 or points.shape[1] != 5:
            raise ValueError('points take shape (P, 5): x, y, z, intensity, '
                             f'lag; got {tuple(points.shape)}')
        points = points.float()
        cells, inside = self.grid.index(points[:, :3])
        points, cells = points[inside], cells[inside]
        size = points.new_tensor(self.grid.voxel_size)
        offset = (points[:, :3] -
                  points.new_tensor(self.grid.minimum)) / size - cells - 0.5
        features = torch.cat(
            [offset, points[:, 3:4] / 255, points[:, 4:]], dim=1)

        voxel_of, order = self.grid.ravel(cells).sort(stable=True)
        occupied, count = voxel_of.unique_consecutive(return_counts=True)
        # A mean over bags of points: unlike index_add, deterministic on CUDA.
        mean = F.embedding_bag(
            order, features, count.cumsum(0) - count, mode='mean')
        out = features.new_zeros(self.grid.num_voxels, self.out_channels)
        out[occupied] = torch.cat([mean, count[:, None].log1p()], dim=1)
        return out


def lidar_depth_maps(points: Sequence[Tensor], geometry: ViewGeometry,
                     image_size: Tuple[int, int]) -> Tensor:
    """Depth of the nearest keyframe return in each pixel of the input images.

    Args:
        points: B clouds as ``VoxelMean`` takes them; only points without lag
            are drawn, since what moved would leave a trail.
        geometry: Calibration of the batch.
        image_size: Height and width of the network input in pixels.

    Returns:
        Metres, 0 where there is no return, shape (B * N, H, W), float32.
    """
    height, width = image_size
    ego2cam = torch.linalg.inv(geometry.cam2augmented_ego())
    cam2img = geometry.augmented_cam2img()
    maps = []
    for cloud, to_camera, to_image in zip(points, ego2cam, cam2img):
        xyz = cloud[cloud[:, 4] == 0, :3].to(to_camera)
        in_camera = transform_points(to_camera, xyz[None])
        depth = in_camera[..., 2]
        pixels = in_camera @ to_image.mT
        pixels = (pixels[..., :2] / depth[..., None]).floor()
        column, row = pixels.unbind(-1)
        seen = ((depth > 0) & (column >= 0) & (column < width) & (row >= 0) &
                (row < height))
        camera = torch.arange(len(depth), device=depth.device)[:, None]
        pixel = ((camera * height + row) * width + column)[seen].long()
        nearest = depth.new_full((len(depth) * height * width, ),
                                 float('inf'))
        nearest.scatter_reduce_(0, pixel, depth[seen], 'amin')
        nearest[nearest.isinf()] = 0
        maps.append(nearest.view(-1, height, width))
    return torch.cat(maps).float()
