"""What the rays see of a volume.

R rays, V voxels, C classes.
"""
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Optional

from torch import Tensor

from radocc_plugin.rendering.geometry import RenderGeometry

if TYPE_CHECKING:
    from radocc_plugin.rendering.renderer import VolumeRenderer


class VoxelLight(NamedTuple):
    """What the teacher's rays leave in each voxel, (B, X, Y, Z) each; see
    ``rendering.voxel_light``.

    Args:
        entered: Light that enters a voxel, in rays of the full render.
        ended: Light that ends in it.
    """
    entered: Tensor
    ended: Tensor


@dataclass(frozen=True)
class Render:
    """What the rays see of the volumes of a batch.

    Args:
        accumulated_depth: Projection depth in metres, not divided by the
            opacity: 0 for a ray that hits nothing, (R,).
        semantics: Accumulated logits of the non-free classes, (R, C - 1).
        no_hit: Probability that a ray leaves without a hit, (R,).
        density: Density of every voxel in 1/m, (V,), flat (batch, x, y, z);
            raw, before its softplus, in sampled mode.
        geometry: Rays and grid.
        renderer: What rendered it.
        teacher: The render that was made along the same walk, if there is
            one, see ``VolumeRenderer.render_pair``.
        divergence: ``ray_kl`` of that teacher, (R,).
    """
    accumulated_depth: Tensor
    semantics: Tensor
    no_hit: Tensor
    density: Tensor
    geometry: RenderGeometry
    renderer: 'VolumeRenderer'
    teacher: Optional['Render'] = None
    divergence: Optional[Tensor] = None

    @property
    def depth(self) -> Tensor:
        """Accumulated depth, clamped to the renderer's ``depth_range``."""
        limits = self.renderer.depth_range
        depth = self.accumulated_depth
        return depth if limits is None else depth.clamp(*limits)

    @property
    def depth_given_hit(self) -> Tensor:
        """Mean depth of the rays that end in the grid, metres, (R,)."""
        return self.accumulated_depth / (1 - self.no_hit).clamp_min(1e-6)

    @property
    def weights(self) -> Tensor:
        """Termination weights, differentiable in the density: packed like
        ``geometry.segments``, (M,); dense in sampled mode, (R, S)."""
        return self.renderer.weights(self)

    def ray_kl(self, teacher: 'Render') -> Tensor:
        """KL(teacher || this) of where each ray ends, in nats, (R,); see
        ``rendering.ray_kl``.

        Raises:
            ValueError: If the teacher's render has other rays.
        """
        if teacher.geometry is not self.geometry:
            raise ValueError('teacher and student must be rendered along the '
                             'same rays: pass one RenderGeometry to both')
        if teacher is self.teacher:
            return self.divergence
        return self.renderer.ray_kl(teacher.density, self.density,
                                    self.geometry)
