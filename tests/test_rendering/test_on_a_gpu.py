"""What the backends promise on CUDA."""

from dataclasses import replace

import pytest
import torch

from radocc_plugin.geometry import Cameras, VoxelGrid
from radocc_plugin.rendering import VolumeRenderer, get_backend, voxel_light
from radocc_plugin.rendering.backends import triton
from tests.test_rendering.rendered import EXACT, everything

pytestmark = pytest.mark.gpu
OCC3D = VoxelGrid((-40, -40, -1, 40, 40, 5.4), (200, 200, 16))


@pytest.fixture(params=['torch', 'triton'])
def backend(request):
    if request.param == 'triton' and triton.why_not_usable():
        pytest.skip(triton.why_not_usable())
    return request.param


@pytest.fixture
def on_gpu(geometry_of, volume_of):
    """Geometry and the volumes of ``everything`` on CUDA."""

    def make(number, channels=18, batch=2, **kwargs):
        geometry = geometry_of(number, batch=batch, **kwargs)
        rays = geometry.rays
        rays = replace(
            rays,
            **{name: value.cuda() for name, value in vars(rays).items() if torch.is_tensor(value)},
        )
        density, values = volume_of(geometry, channels, dtype=torch.float32)
        student, _ = volume_of(geometry, seed=1, dtype=torch.float32)
        return (replace(geometry, rays=rays), density.cuda(), values.cuda(), student.cuda() + 0.01)

    return make


@pytest.mark.parametrize(
    'number, channels, grid',
    [
        (40, 18, None),
        (3000, 18, None),
        (500, 3, None),
        (500, 17, None),
        (2000, 18, OCC3D),
        (0, 18, None),
    ],
)
def test_equals_the_reference(on_gpu, backend, number, channels, grid):
    args = on_gpu(number, channels, **({} if grid is None else dict(grid=grid, batch=1)))
    for got, want in zip(
        everything(*args, backend=backend, **EXACT), everything(*args, backend='reference')
    ):
        error = (got - want).norm() / want.norm().clamp_min(1e-30)
        assert float(error) < 1e-4


def test_light_is_the_same_in_every_run(on_gpu, backend):
    if backend == 'torch':
        pytest.skip('in deterministic mode only')
    geometry, density, *_ = on_gpu(20000)
    first, *others = (voxel_light(density, geometry, backend=backend) for _ in range(4))
    assert all(torch.equal(a, b) for x in others for a, b in zip(first, x))


def test_deterministic_mode_repeats_or_names_itself(on_gpu, backend):
    args = on_gpu(5000)
    torch.use_deterministic_algorithms(True)
    try:
        if backend == 'triton':
            with pytest.raises(RuntimeError, match='deterministic'):
                everything(*args, backend=backend)
            light = voxel_light(args[1], args[0], backend=backend)
            again = voxel_light(args[1], args[0], backend='auto')
            assert all(torch.equal(a, b) for a, b in zip(light, again))
            return
        twice = [everything(*args, backend=backend) for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(*twice))


def test_a_step_never_waits_for_the_gpu():
    """Ray draw, light, teacher, student, divergence and gradient."""
    if get_backend('auto', torch.device('cuda')) is not triton:
        pytest.skip(str(triton.why_not_usable()))
    matrix = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0.05], [0, -1, 0, 0.7], [0, 0, 0, 1]])
    image = torch.tensor([[20.0, 0, 16], [0, 20, 9], [0, 0, 1]])
    cameras = Cameras(
        image[None, None].cuda(), matrix[None, None].cuda(), torch.eye(4)[None].cuda(), (18, 32)
    )
    renderer = VolumeRenderer((-4, -4, -1, 4, 4, 2.2), (18, 32), max_rays=300)
    logits = torch.randn(1, 20, 20, 8, 18, device='cuda', requires_grad=True)
    target = torch.randn_like(logits.detach())
    generator = torch.Generator().manual_seed(0)

    def step():
        geometry = renderer.trace(cameras, (20, 20, 8), generator)
        light = renderer.light(target, geometry)
        teacher, student = renderer.render_pair((target, None), (logits, None), geometry)
        loss = student.depth.mean() + student.ray_kl(teacher).mean()
        loss = loss + student.semantics.square().mean() + light.entered.mean()
        loss.backward()

    step()  # kernels are compiled
    torch.cuda.set_sync_debug_mode('error')
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode('default')
