"""The registered renderer: occupancy volumes and cameras to what rays see."""
from collections import OrderedDict
from dataclasses import replace
from typing import Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from radocc_plugin.geometry import (RAY_ORDERS, RAY_SAMPLERS, Cameras,
                                    VoxelGrid, draw_rays)
from radocc_plugin.registry import MODELS
from radocc_plugin.rendering.backends import BACKENDS
from radocc_plugin.rendering.density import (DENSITIES, class_index,
                                             density_from_head,
                                             density_from_labels,
                                             density_from_logits)
from radocc_plugin.rendering.functional import termination
from radocc_plugin.rendering.geometry import RenderGeometry
from radocc_plugin.rendering.ops import (ray_kl, render, render_logits,
                                         render_logits_pair, voxel_light)
from radocc_plugin.rendering.rendered import Render, VoxelLight
from radocc_plugin.rendering.sampled import (Sampling, render_samples,
                                             sampled_ray_kl, sampled_weights)


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
        ray_order: ``camera`` or ``direction``, see ``draw_rays``.
        density: ``free_probability`` (default) and ``softplus`` take it from
            the logits, see ``density_from_logits``; ``head`` from density
            logits of the model's own.
        free_index: Class of free space; -1 for the last.
        backend: ``auto``, ``reference``, ``torch``, ``cpp`` or ``triton``,
            see ``rendering.backends.get_backend``.
        min_transmittance: Compiled backends end a ray where less light than
            this is left; 0 for never.
        sampling: None renders exactly, with constant density in each voxel.
            ``'author'`` or the arguments of ``Sampling`` render uniform
            samples with trilinear interpolation, as the RadOcc author does;
            needs ``density='softplus'`` or ``'head'``.
        cached_rigs: Batches of calibrations whose rays and walks are kept,
            for the ``torch`` backend with ``ray_sampler='grid'`` and all
            rays: 32 bytes a crossing. 0 builds them at every call.
        depth_range: Rendered depth is clamped to it, metres; None for never.
            (Author: 1 to 45 m, in renders of all pixels.)

    Raises:
        ValueError: If an option is not valid.
    """

    def __init__(self,
                 point_cloud_range: Sequence[float],
                 render_size: Tuple[int, int],
                 ray_sampler: str = 'random',
                 max_rays: Optional[int] = 80000,
                 ray_order: str = 'camera',
                 density: str = 'free_probability',
                 free_index: int = -1,
                 backend: str = 'auto',
                 min_transmittance: float = 1e-4,
                 sampling: Union[None, str, dict] = None,
                 cached_rigs: int = 0,
                 depth_range: Optional[Tuple[float, float]] = None) -> None:
        super().__init__()
        for name, value, allowed in (
            ('density', density, DENSITIES),
            ('backend', backend, BACKENDS),
            ('ray_sampler', ray_sampler, RAY_SAMPLERS),
            ('ray_order', ray_order, RAY_ORDERS)):
            if value not in allowed:
                raise ValueError(f'VolumeRenderer.{name} takes one of '
                                 f'{tuple(allowed)}, got {value!r}')
        if max_rays is not None and max_rays < 1:
            raise ValueError('VolumeRenderer.max_rays takes a positive number '
                             f'or None, got {max_rays}')
        if not 0 <= min_transmittance < 1:
            raise ValueError('VolumeRenderer.min_transmittance takes 0 to 1, '
                             f'got {min_transmittance}')
        if cached_rigs and (ray_sampler != 'grid' or max_rays is not None):
            raise ValueError(
                'VolumeRenderer.cached_rigs keeps rays that do not change '
                "between steps: ray_sampler='grid' and max_rays=None, got "
                f'{ray_sampler!r} and {max_rays}')
        if sampling not in (None, 'author'):
            Sampling(**sampling)
        if sampling is not None and backend in ('reference', 'triton'):
            raise ValueError("VolumeRenderer.sampling takes backend 'auto', "
                             f"'torch' or 'cpp', got {backend!r}")
        if sampling is not None and density == 'free_probability':
            raise ValueError(
                "VolumeRenderer.sampling interpolates raw density and needs "
                "density='softplus' or 'head', got 'free_probability'")
        self.point_cloud_range = tuple(point_cloud_range)
        self.render_size = tuple(render_size)
        self.ray_sampler = ray_sampler
        self.max_rays = max_rays
        self.ray_order = ray_order
        self.density = density
        self.free_index = free_index
        self.backend = backend
        self.min_transmittance = min_transmittance
        self.sampling = sampling
        self.cached_rigs = cached_rigs
        self._rigs = OrderedDict()
        self.depth_range = depth_range

    def trace(self,
              cameras: Cameras,
              grid_shape: Tuple[int, int, int],
              generator: Optional[torch.Generator] = None,
              **sampler_inputs) -> RenderGeometry:
        """Draws the rays that all volumes of a step share.

        Args:
            cameras: Raw cameras of the batch.
            grid_shape: Cells (X, Y, Z) of the volumes to be rendered.
            generator: CPU generator of the ray draw.
            sampler_inputs: ``points`` or ``segments``, for the samplers that
                need them, see ``draw_rays``.
        """
        if self.cached_rigs:
            return self._cached(cameras, tuple(grid_shape))
        rays = draw_rays(
            cameras,
            self.render_size,
            self.ray_sampler,
            max_rays=self.max_rays,
            order=self.ray_order,
            generator=generator,
            **sampler_inputs)
        return self.geometry(rays, cameras, grid_shape)

    def trace_all(self, cameras: Cameras,
                  grid_shape: Tuple[int, int, int]) -> RenderGeometry:
        """Every pixel of the render, for maps and pictures."""
        rays = draw_rays(cameras, self.render_size, 'grid')
        return self.geometry(rays, cameras, grid_shape)

    def _cached(self, cameras: Cameras,
                grid_shape: Tuple[int, int, int]) -> RenderGeometry:
        key = (grid_shape, cameras.cam2img.device, *(
            x.cpu().numpy().tobytes()
            for x in (cameras.cam2img, cameras.cam2ego, cameras.bda_mat,
                      cameras.image_sizes)))
        if key not in self._rigs:
            rays = draw_rays(
                cameras, self.render_size, 'grid', order=self.ray_order)
            self._rigs[key] = self.geometry(rays, cameras, grid_shape)
        self._rigs.move_to_end(key)
        if len(self._rigs) > self.cached_rigs:
            self._rigs.popitem(last=False)
        return self._rigs[key]

    def geometry(self, rays, cameras: Cameras,
                 grid_shape: Tuple[int, int, int]) -> RenderGeometry:
        """Rays of one's own in this renderer's grid."""
        return RenderGeometry(
            rays, VoxelGrid(self.point_cloud_range, grid_shape),
            len(cameras.cam2img))

    def forward(self,
                occ_logits: Tensor,
                geometry: RenderGeometry,
                density_logits: Optional[Tensor] = None) -> Render:
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
            if self.sampling is not None:
                return self._sampled(logits, density_logits, geometry)
            options = dict(
                backend=self.backend,
                min_transmittance=self.min_transmittance)
            if density_logits is None:
                density, depth, semantics, no_hit = render_logits(
                    logits,
                    geometry,
                    density=self.density,
                    free_index=self.free_index,
                    **options)
            else:
                density = density_from_head(density_logits)
                depth, semantics, no_hit = render(density, logits, geometry,
                                                  **options)
                semantics = self._without_free(semantics)
            return Render(
                depth, semantics, no_hit, density, geometry,
                self)

    def render_pair(self, teacher: Tuple[Tensor, Optional[Tensor]],
                    student: Tuple[Tensor, Optional[Tensor]],
                    geometry: RenderGeometry) -> Tuple[Render, Render]:
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
        if (self.sampling is not None or self.density == 'head'
                or logits[0].shape != logits[1].shape):
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
                backend=self.backend,
                min_transmittance=self.min_transmittance)
        target, own = (
            Render(*rest, density, geometry, self)
            for density, *rest in renders)
        return target, replace(own, teacher=target, divergence=divergence)

    @torch.no_grad()
    def light(self,
              occ_logits: Tensor,
              geometry: RenderGeometry,
              density_logits: Optional[Tensor] = None) -> VoxelLight:
        """The light of a volume's rays in each of its voxels, no gradient.

        Args:
            occ_logits: (B, X, Y, Z, C).
            geometry: What ``trace`` returned.
            density_logits: As in ``forward``.

        Raises:
            ValueError: As in ``forward``, or in sampled mode.
        """
        if self.sampling is not None:
            raise ValueError('VolumeRenderer.light renders exactly: set '
                             'VolumeRenderer.sampling=None')
        self._check(occ_logits, geometry, density_logits)
        with torch.autocast(occ_logits.device.type, enabled=False):
            if density_logits is not None:
                density = density_from_head(density_logits.flatten())
            else:
                density = density_from_logits(
                    _at_least_float32(occ_logits.flatten(0, 3)),
                    geometry.cubic_voxel_size, self.free_index, self.density)
            light = voxel_light(
                density,
                geometry,
                backend=self.backend,
                min_transmittance=self.min_transmittance)
        return VoxelLight(*(x.view(occ_logits.shape[:4]) for x in light))

    def render_labels(self, labels: Tensor, geometry: RenderGeometry,
                      num_classes: int) -> Render:
        """Renders a label volume (B, X, Y, Z), such as ground truth, see
        ``density_from_labels``; ``semantics`` holds the share of each
        non-free class."""
        labels = labels.flatten().long()
        free = class_index(self.free_index, num_classes)
        density = density_from_labels(labels, geometry.cubic_voxel_size, free)
        depth, semantics, no_hit = render(
            density,
            F.one_hot(labels, num_classes).float(),
            geometry,
            backend=self.backend,
            min_transmittance=self.min_transmittance)
        return Render(
            depth, self._without_free(semantics), no_hit,
            density, geometry, self)

    def ray_kl(self, teacher_density: Tensor, student_density: Tensor,
               geometry: RenderGeometry) -> Tensor:
        """Divergence of two renders of the same rays, see ``Render``."""
        if self.sampling is not None:
            return sampled_ray_kl(teacher_density, student_density, geometry,
                                  self._samples(geometry))
        return ray_kl(
            teacher_density,
            student_density,
            geometry,
            backend=self.backend,
            min_transmittance=self.min_transmittance)

    def weights(self, render: Render) -> Tensor:
        """Termination weights of a render, see ``Render``."""
        if self.sampling is not None:
            return sampled_weights(render.density, render.geometry,
                                   self._samples(render.geometry))[0]
        segments = render.geometry.segments
        optical_depth = render.density[segments.voxel] * segments.length
        return termination(optical_depth, segments.offsets)[0]

    def _sampled(self, logits: Tensor, density_logits: Optional[Tensor],
                 geometry: RenderGeometry) -> Render:
        if density_logits is None:
            density_logits = -logits[:, self.free_index]
        depth, semantics, no_hit = render_samples(
            density_logits,
            logits,
            geometry,
            self._samples(geometry),
            backend=self.backend,
            min_transmittance=self.min_transmittance)
        return Render(
            depth, self._without_free(semantics), no_hit,
            density_logits, geometry, self)

    def _samples(self, geometry: RenderGeometry) -> Sampling:
        if self.sampling == 'author':
            return Sampling.of_author(geometry.grid)
        return Sampling(**self.sampling)

    def _without_free(self, semantics: Tensor) -> Tensor:
        free = class_index(self.free_index, semantics.shape[1])
        return torch.cat((semantics[:, :free], semantics[:, free + 1:]), dim=1)

    def _check(self, occ_logits: Tensor, geometry: RenderGeometry,
               density_logits: Optional[Tensor]) -> None:
        shape = geometry.grid.shape
        expected = (geometry.num_volumes, *shape)
        if occ_logits.dim() != 5 or tuple(occ_logits.shape[:4]) != expected:
            raise ValueError(f'occ_logits take shape {(*expected, "C")}, got '
                             f'{tuple(occ_logits.shape)}')
        if (density_logits is None) == (self.density == 'head'):
            raise ValueError(
                "density_logits belong to VolumeRenderer.density='head', got "
                f'density={self.density!r} and density_logits='
                f'{"None" if density_logits is None else "a tensor"}')
        if density_logits is not None and (tuple(density_logits.shape) !=
                                           expected):
            raise ValueError(f'density_logits take shape {expected}, got '
                             f'{tuple(density_logits.shape)}')


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
