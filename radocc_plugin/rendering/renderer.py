"""The registered renderer: occupancy logits -> depth, semantics, termination.

B batch, X Y Z grid, C classes, R rays, M segments.
"""
from dataclasses import dataclass, replace
from typing import Optional, Sequence, Tuple

import torch
from mmengine.model import BaseModule
from torch import Tensor

from radocc_plugin.geometry import (Cameras, Rays, RaySegments, VoxelGrid,
                                    camera_rays, traverse)
from radocc_plugin.registry import MODELS
from radocc_plugin.rendering.density import (DENSITIES, density_from_labels,
                                             density_from_logits)
from radocc_plugin.rendering.functional import (accumulate, expected_depth,
                                                termination)


@dataclass(frozen=True)
class RenderGeometry:
    """Rays and the voxels that they cross, shared by every volume rendered.

    Args:
        rays: The rays.
        segments: Their segments; ``voxel`` counts rows of ``touched``.
        touched: Flat index (batch, x, y, z) of every voxel that some ray
            crosses, int64, (V,).
        grid: The voxel grid.
    """
    rays: Rays
    segments: RaySegments
    touched: Tensor
    grid: VoxelGrid


@dataclass(frozen=True)
class Render:
    """What the rays see of one volume.

    Args:
        optical_depth: Density times length of each segment, (M,).
        weights: Termination weights, (M,).
        no_hit: Probability that a ray leaves without a hit, (R,).
        depth: Accumulated projection depth in metres, (R,).
        semantics: Accumulated logits of the non-free classes, (R, C - 1).
        geometry: Rays and segments.
    """
    optical_depth: Tensor
    weights: Tensor
    no_hit: Tensor
    depth: Tensor
    semantics: Tensor
    geometry: RenderGeometry

    @property
    def depth_given_hit(self) -> Tensor:
        """Mean depth of the rays that end in the grid, metres, (R,)."""
        return self.depth / (1 - self.no_hit).clamp_min(1e-6)


@MODELS.register_module()
class OccRenderer(BaseModule):
    """Renders occupancy volumes into cameras by an exact voxel walk.

    Args:
        point_cloud_range: ``(x0, y0, z0, x1, y1, z1)`` of the volume, metres.
        render_size: Height and width of the render of each camera.
        max_rays: Rays drawn for each step in the whole batch (author:
            80,000); None for all.
        density: How density comes from logits, see ``density_from_logits``.
        free_index: Class of free space; -1 for the last.

    Raises:
        ValueError: If ``density`` or ``max_rays`` is not valid.
    """

    def __init__(self,
                 point_cloud_range: Sequence[float],
                 render_size: Tuple[int, int],
                 max_rays: Optional[int] = 80000,
                 density: str = 'free_probability',
                 free_index: int = -1) -> None:
        super().__init__()
        if density not in DENSITIES:
            raise ValueError(f'OccRenderer.density takes one of {DENSITIES}, '
                             f'got {density!r}')
        if max_rays is not None and max_rays < 1:
            raise ValueError('OccRenderer.max_rays takes a positive number or '
                             f'None, got {max_rays}')
        self.point_cloud_range = tuple(point_cloud_range)
        self.render_size = tuple(render_size)
        self.max_rays = max_rays
        self.density = density
        self.free_index = free_index

    def trace(self,
              cameras: Cameras,
              grid_shape: Tuple[int, int, int],
              generator: Optional[torch.Generator] = None,
              max_rays: Optional[int] = -1) -> RenderGeometry:
        """Draws rays and walks them through the grid.

        Args:
            cameras: Raw cameras of the batch.
            grid_shape: Cells (X, Y, Z) of the volumes to be rendered.
            generator: CPU generator of the ray draw.
            max_rays: Overrides the renderer's own; None for all rays.

        Raises:
            ValueError: If the voxels are not cubes.
        """
        grid = VoxelGrid(self.point_cloud_range, grid_shape)
        if max(grid.voxel_size) > 1.001 * min(grid.voxel_size):
            raise ValueError(
                'density per voxel needs cubic voxels, grid_shape '
                f'{tuple(grid_shape)} gives edges {grid.voxel_size} m')
        rays = camera_rays(cameras, self.render_size,
                           self.max_rays if max_rays == -1 else max_rays,
                           generator)
        segments = traverse(rays.origins, rays.directions, grid)
        voxel = segments.voxel + rays.sample[segments.ray] * grid.num_voxels
        # Everything below works on the voxels that rays touch, often less
        # than half of the volume.
        num_voxels = len(cameras.cam2img) * grid.num_voxels
        is_touched = torch.zeros(
            num_voxels, dtype=torch.bool, device=voxel.device)
        is_touched[voxel] = True
        row = is_touched.long().cumsum(0) - 1
        return RenderGeometry(rays, replace(segments, voxel=row[voxel]),
                              is_touched.nonzero().squeeze(1), grid)

    def forward(self, occ_logits: Tensor, geometry: RenderGeometry) -> Render:
        """Renders logits, shape (B, X, Y, Z, C), in float32.

        Raises:
            ValueError: If the logits do not fit the traced grid.
        """
        shape = geometry.grid.shape
        if occ_logits.dim() != 5 or tuple(occ_logits.shape[1:4]) != shape:
            raise ValueError(f'occ_logits take shape (B, {shape[0]}, '
                             f'{shape[1]}, {shape[2]}, C), got '
                             f'{tuple(occ_logits.shape)}')
        with torch.autocast(occ_logits.device.type, enabled=False):
            logits = occ_logits.flatten(0, 3).index_select(
                0, geometry.touched).float()
            density = density_from_logits(logits,
                                          geometry.grid.voxel_size[0],
                                          self.free_index, self.density)
            free = self.free_index % logits.shape[-1]
            semantics = torch.cat((logits[:, :free], logits[:, free + 1:]),
                                  dim=1)
            return self._render(density, semantics, geometry)

    def render_labels(self, labels: Tensor, geometry: RenderGeometry,
                      num_classes: int) -> Render:
        """Renders a label volume (B, X, Y, Z), see ``density_from_labels``;
        ``semantics`` holds the share of each non-free class."""
        free = self.free_index % num_classes
        labels = labels.flatten().index_select(0, geometry.touched).long()
        one_hot = torch.nn.functional.one_hot(labels, num_classes).float()
        semantics = torch.cat((one_hot[:, :free], one_hot[:, free + 1:]),
                              dim=1)
        density = density_from_labels(labels, geometry.grid.voxel_size[0],
                                      free)
        return self._render(density, semantics, geometry)

    def _render(self, density: Tensor, semantics: Tensor,
                geometry: RenderGeometry) -> Render:
        segments = geometry.segments
        optical_depth = density[segments.voxel] * segments.length
        weights, no_hit = termination(optical_depth, segments.offsets)
        depth = expected_depth(optical_depth, weights, segments.near,
                               segments.far, segments.offsets)
        rendered = accumulate(weights, semantics, segments.voxel,
                              segments.offsets)
        return Render(optical_depth, weights, no_hit, depth, rendered,
                      geometry)
