import pytest
import torch

from radocc_plugin.geometry import Rays, VoxelGrid
from radocc_plugin.rendering import RenderGeometry
from radocc_plugin.rendering.backends import cpp

GRID = VoxelGrid((-2, -2.4, -1, 2, 2.4, 2.2), (10, 12, 8))


@pytest.fixture
def geometry_of():
    """Rays from inside and outside the grid, axis-parallel ones, missing
    ones, through a small grid."""

    def make(number=40, seed=0, batch=1, grid=GRID):
        generator = torch.Generator().manual_seed(seed)
        origins = torch.rand(number, 3, generator=generator) * 6 - 3
        origins[::2] *= 0.4
        directions = torch.randn(number, 3, generator=generator)
        directions[::9, 0] = 0
        directions[::5, 2] = 0
        directions[4::45] = torch.tensor([0.0, -1, 0])
        sample = torch.randint(batch, (number,), generator=generator)
        sample = sample.sort().values
        rays = Rays(
            origins, directions, sample, torch.zeros_like(sample), torch.arange(number), (1, number)
        )
        return RenderGeometry(rays, grid, batch)

    return make


@pytest.fixture
def volume_of():
    """Density with empty voxels, and values."""

    def make(geometry, channels=3, seed=0, dtype=torch.float64):
        generator = torch.Generator().manual_seed(seed)
        shape = (geometry.num_voxels,)
        density = torch.rand(shape, generator=generator, dtype=dtype) * 3
        density[torch.rand(shape, generator=generator) < 0.3] = 0
        values = torch.randn(*shape, channels, generator=generator, dtype=dtype)
        return density, values

    return make


@pytest.fixture(params=['torch', 'cpp'])
def backend(request):
    """The backends that are differentiable by their own formulas here."""
    if request.param == 'cpp' and cpp.why_not_compiled():
        pytest.skip(cpp.why_not_compiled())
    return request.param
