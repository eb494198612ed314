"""The registered renderer: occupancy volumes and cameras to what rays see."""

from dataclasses import replace
from typing import Optional, Sequence, Tuple, TypedDict

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from radocc_plugin.geometry import RAY_SAMPLERS, VIEWS, Cameras, VoxelGrid, camera_views, draw_rays
from radocc_plugin.registry import MODELS
from radocc_plugin.rendering.backends import BACKENDS
from radocc_plugin.rendering.density import (
    DENSITIES,
    class_index,
    density_from_head,
    density_from_labels,
)
from radocc_plugin.rendering.ops import (
    render,
    render_logits,
    render_logits_pair,
    voxel_light,
    voxel_light_of_logits,
)
from radocc_plugin.rendering.render_geometry import RenderGeometry
from radocc_plugin.rendering.outputs import Render, VoxelLight


class _RenderOptions(TypedDict):
    backend: str
    min_transmittance: float


@MODELS.register_module()
class VolumeRenderer(BaseModule):
    """Renders occupancy volumes into cameras.

    Args:
        point_cloud_range: ``(x0, y0, z0, x1, y1, z1)`` of the volume, metres.
        render_size: Height and width of the render of each camera.
        ray_sampler: Which pixels of it get a ray: ``random`` (default),
            ``grid``, ``lidar`` or ``segments``; see ``draw_rays``.
        max_rays: Rays of a step in the whole batch (author: 80,000); None
            for all.
        density: ``free_probability`` (default) and ``softplus`` take it from
            the logits, see ``density_from_logits``; ``head`` from density
            logits of the model's own.
        free_index: Class of free space; -1 for the last.
        backend: ``auto``, ``reference``, ``torch``, ``cpp`` or ``triton``,
            see ``rendering.backends.get_backend``.
        min_transmittance: Compiled backends end a ray where less light than
            this is left; 0 for never.
        views: Cameras that get rays: ``sensor`` and the virtual ones of
            ``camera_views``, which see what the rig's cameras do not.

    Raises:
        ValueError: If an option is not valid.
    """

    def __init__(
        self,
        point_cloud_range: Sequence[float],
        render_size: Tuple[int, int],
        ray_sampler: str = 'random',
        max_rays: Optional[int] = 80000,
        density: str = 'free_probability',
        free_index: int = -1,
        backend: str = 'auto',
        min_transmittance: float = 1e-4,
        views: Sequence[str] = ('sensor',),
    ) -> None:
        super().__init__()
        for name, value, allowed in (
            ('density', density, DENSITIES),
            ('backend', backend, BACKENDS),
            ('ray_sampler', ray_sampler, RAY_SAMPLERS),
        ):
            if value not in allowed:
                raise ValueError(
                    f'VolumeRenderer.{name} takes one of {tuple(allowed)}, got {value!r}'
                )
        if max_rays is not None and max_rays < 1:
            raise ValueError(
                f'VolumeRenderer.max_rays takes a positive number or None, got {max_rays}'
            )
        if not 0 <= min_transmittance < 1:
            raise ValueError(
                f'VolumeRenderer.min_transmittance takes 0 to 1, got {min_transmittance}'
            )
        if not views or not set(views) <= set(VIEWS):
            raise ValueError(f'VolumeRenderer.views takes some of {VIEWS}, got {tuple(views)}')
        self.views = tuple(views)
        self.point_cloud_range = tuple(point_cloud_range)
        height, width = render_size
        self.render_size = (height, width)
        self.ray_sampler = ray_sampler
        self.max_rays = max_rays
        self.density = density
        self.free_index = free_index
        self.backend = backend
        self.min_transmittance = min_transmittance

    def trace(
        self,
        cameras: Cameras,
        grid_shape: Tuple[int, int, int],
        generator: Optional[torch.Generator] = None,
        **sampler_inputs,
    ) -> RenderGeometry:
        """Draws the rays that all volumes of a step share.

        Args:
            cameras: Raw cameras of the batch.
            grid_shape: Cells (X, Y, Z) of the volumes to be rendered.
            generator: CPU generator of the ray draw.
            sampler_inputs: ``points`` or ``segments``, for the samplers that
                need them, see ``draw_rays``.
        """
        rays = draw_rays(
            self._views_of(cameras),
            self.render_size,
            self.ray_sampler,
            max_rays=self.max_rays,
            generator=generator,
            **sampler_inputs,
        )
        return self.geometry(rays, cameras, grid_shape)

    def num_pixels(self, cameras: Cameras) -> int:
        """Pixels of the full render, of all views of the batch."""
        height, width = self.render_size
        return self._views_of(cameras).cam2img.shape[:2].numel() * height * width

    def _views_of(self, cameras: Cameras) -> Cameras:
        if self.views == ('sensor',):
            return cameras
        return camera_views(cameras, self.views, self.point_cloud_range)

    def trace_all(self, cameras: Cameras, grid_shape: Tuple[int, int, int]) -> RenderGeometry:
        """Every pixel of the rig's render, for maps and pictures."""
        rays = draw_rays(cameras, self.render_size, 'grid')
        return self.geometry(rays, cameras, grid_shape)

    def geometry(self, rays, cameras: Cameras, grid_shape: Tuple[int, int, int]) -> RenderGeometry:
        """Rays of one's own in this renderer's grid."""
        return RenderGeometry(
            rays, VoxelGrid(self.point_cloud_range, grid_shape), len(cameras.cam2img)
        )

    def forward(
        self, occ_logits: Tensor, geometry: RenderGeometry, density_logits: Optional[Tensor] = None
    ) -> Render:
        """Renders logits in float32.

        Args:
            occ_logits: (B, X, Y, Z, C).
            geometry: What ``trace`` returned.
            density_logits: Raw density of a head of its own, (B, X, Y, Z);
                for ``density='head'`` only.

        Raises:
            ValueError: If the volumes do not fit the traced grid, or the
                density head is missing or not asked for.
        """
        self._check(occ_logits, geometry, density_logits)
        with torch.autocast(occ_logits.device.type, enabled=False):
            logits = _at_least_float32(occ_logits.flatten(0, 3))
            if density_logits is not None:
                density_logits = _at_least_float32(density_logits.flatten())
            if density_logits is None:
                density, depth, semantics, no_hit = render_logits(
                    logits,
                    geometry,
                    density=self.density,
                    free_index=self.free_index,
                    **self._options,
                )
            else:
                density = density_from_head(density_logits)
                depth, semantics, no_hit = render(density, logits, geometry, **self._options)
                semantics = self._without_free(semantics)
            return self._render(depth, semantics, no_hit, density, geometry)

    def render_pair(
        self,
        teacher: Tuple[Tensor, Optional[Tensor]],
        student: Tuple[Tensor, Optional[Tensor]],
        geometry: RenderGeometry,
    ) -> Tuple[Render, Render]:
        """Renders a teacher, without gradient, and its student.

        The same as two calls, and as ``Render.ray_kl`` later, in one walk of
        the rays where density follows from the logits.

        Args:
            teacher: Its ``occ_logits`` and ``density_logits``, see
                ``forward``.
            student: The same of the student.
            geometry: What ``trace`` returned.

        Raises:
            ValueError: As in ``forward``.
        """
        logits = [model[0] for model in (teacher, student)]
        if self.density == 'head' or logits[0].shape != logits[1].shape:
            with torch.no_grad():
                target = self(teacher[0], geometry, teacher[1])
            return target, self(student[0], geometry, student[1])
        for model in (teacher, student):
            self._check(model[0], geometry, model[1])
        with torch.autocast(logits[0].device.type, enabled=False):
            logits = [_at_least_float32(x.flatten(0, 3)) for x in logits]
            *renders, divergence = render_logits_pair(
                logits[0].to(logits[1].dtype),
                logits[1],
                geometry,
                density=self.density,
                free_index=self.free_index,
                **self._options,
            )
        target, own = (self._render(*rest, density, geometry) for density, *rest in renders)
        return target, replace(own, teacher=target, divergence=divergence)

    @torch.no_grad()
    def light(
        self,
        occ_logits: Tensor,
        geometry: RenderGeometry,
        density_logits: Optional[Tensor] = None,
        crossed: bool = False,
    ) -> VoxelLight:
        """The light of a volume's rays in each of its voxels, no gradient.

        Args:
            occ_logits: (B, X, Y, Z, C).
            geometry: What ``trace`` returned.
            density_logits: As in ``forward``.
            crossed: Whether the rays through each voxel are counted too, in a
                walk of their own.

        Raises:
            ValueError: As in ``forward``.
        """
        self._check(occ_logits, geometry, density_logits)
        with torch.autocast(occ_logits.device.type, enabled=False):
            if density_logits is not None:
                light = voxel_light(
                    density_from_head(density_logits.flatten()), geometry, **self._options
                )
            else:
                light = voxel_light_of_logits(
                    _at_least_float32(occ_logits.flatten(0, 3)),
                    geometry,
                    density=self.density,
                    free_index=self.free_index,
                    **self._options,
                )
            parts = [*light]
            if crossed:
                empty = torch.zeros_like(light[0])
                parts.append(voxel_light(empty, geometry, **self._options)[0])
        return VoxelLight(*(x.view(occ_logits.shape[:4]) for x in parts))

    def render_labels(self, labels: Tensor, geometry: RenderGeometry, num_classes: int) -> Render:
        """Renders a label volume (B, X, Y, Z), such as ground truth, see
        ``density_from_labels``; ``semantics`` holds the share of each
        non-free class."""
        labels = labels.flatten().long()
        free = class_index(self.free_index, num_classes)
        density = density_from_labels(labels, geometry.cubic_voxel_size, free)
        depth, semantics, no_hit = render(
            density, F.one_hot(labels, num_classes).float(), geometry, **self._options
        )
        return self._render(depth, self._without_free(semantics), no_hit, density, geometry)

    @property
    def _options(self) -> _RenderOptions:
        return dict(backend=self.backend, min_transmittance=self.min_transmittance)

    def _render(self, *outputs) -> Render:
        return Render(*outputs, **self._options)

    def _without_free(self, semantics: Tensor) -> Tensor:
        free = class_index(self.free_index, semantics.shape[1])
        return torch.cat((semantics[:, :free], semantics[:, free + 1 :]), dim=1)

    def _check(
        self, occ_logits: Tensor, geometry: RenderGeometry, density_logits: Optional[Tensor]
    ) -> None:
        shape = geometry.grid.shape
        expected = (geometry.num_volumes, *shape)
        if occ_logits.dim() != 5 or tuple(occ_logits.shape[:4]) != expected:
            raise ValueError(
                f'occ_logits take shape {(*expected, "C")}, got {tuple(occ_logits.shape)}'
            )
        if (density_logits is None) == (self.density == 'head'):
            raise ValueError(
                "density_logits belong to VolumeRenderer.density='head', got "
                f'density={self.density!r} and density_logits='
                f'{"None" if density_logits is None else "a tensor"}'
            )
        if density_logits is not None and (tuple(density_logits.shape) != expected):
            raise ValueError(
                f'density_logits take shape {expected}, got {tuple(density_logits.shape)}'
            )


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
