"""What the rays see of a volume.

R rays, V voxels, C classes.
"""

from dataclasses import dataclass
from typing import NamedTuple, Optional

from torch import Tensor

from radocc_plugin.rendering.functional import termination
from radocc_plugin.rendering.ops import ray_kl
from radocc_plugin.rendering.render_geometry import RenderGeometry


class VoxelLight(NamedTuple):
    """What the teacher's rays leave in each voxel, (B, X, Y, Z) each; see
    ``rendering.voxel_light``.

    Args:
        entered: Light that enters a voxel, in rays of the full render.
        ended: Light that ends in it.
        crossed: Rays that would cross it if nothing stopped them; None where
            nobody asks.
    """

    entered: Tensor
    ended: Tensor
    crossed: Optional[Tensor] = None


@dataclass(frozen=True)
class Render:
    """What the rays see of the volumes of a batch.

    Args:
        depth: Projection depth in metres, not divided by the
            opacity: 0 for a ray that hits nothing, (R,).
        semantics: Accumulated logits of the non-free classes, (R, C - 1).
        no_hit: Probability that a ray leaves without a hit, (R,).
        density: Density of every voxel in 1/m, (V,), flat (batch, x, y, z).
        geometry: Rays and grid.
        backend: What rendered it, see ``rendering.render``.
        min_transmittance: As in ``rendering.render``.
        teacher: The render that was made along the same walk, if there is
            one, see ``VolumeRenderer.render_pair``.
        divergence: ``ray_kl`` of that teacher, (R,).
    """

    depth: Tensor
    semantics: Tensor
    no_hit: Tensor
    density: Tensor
    geometry: RenderGeometry
    backend: str
    min_transmittance: float
    teacher: Optional['Render'] = None
    divergence: Optional[Tensor] = None

    @property
    def depth_given_hit(self) -> Tensor:
        """Mean depth of the rays that end in the grid, metres, (R,)."""
        return self.depth / (1 - self.no_hit).clamp_min(1e-6)

    @property
    def weights(self) -> Tensor:
        """Termination weights, differentiable in the density, packed like
        ``geometry.crossings``, (M,)."""
        crossings = self.geometry.crossings
        optical_depth = self.density[crossings.voxel] * crossings.length
        return termination(optical_depth, crossings.offsets)[0]

    def ray_kl(self, teacher: 'Render') -> Tensor:
        """KL(teacher || this) of where each ray ends, in nats, (R,); see
        ``rendering.ray_kl``.

        Raises:
            ValueError: If the teacher's render has other rays.
        """
        if teacher.geometry is not self.geometry:
            raise ValueError(
                'teacher and student must be rendered along the '
                'same rays: pass one RenderGeometry to both'
            )
        if teacher is self.teacher and self.divergence is not None:
            return self.divergence
        return ray_kl(
            teacher.density,
            self.density,
            self.geometry,
            backend=self.backend,
            min_transmittance=self.min_transmittance,
        )
