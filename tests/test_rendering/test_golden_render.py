"""Parity with the published renderer, from the numbers of a case."""
import pytest
import torch
import torch.nn.functional as F

from radocc_plugin.geometry import Cameras, VoxelGrid, draw_rays
from radocc_plugin.losses import scale_invariant_log
from radocc_plugin.rendering import (RenderGeometry, Sampling, VolumeRenderer,
                                     render_samples, sampled_weights)
from radocc_plugin.rendering.backends import cpp
from tests.support.golden import golden_folder


def names():
    return sorted(
        path.stem for path in golden_folder().glob('radocc_render*.json'))


@pytest.fixture(params=names())
def case(request, golden):
    """The case with its geometry."""
    return Case(golden, golden.case(request.param))


class Case:

    def __init__(self, golden, case):
        self.golden, self.case, self.config = golden, case, case.config
        x0, x1, y0, y1, z0, z1 = self.config['real_size']
        grid = VoxelGrid((x0, y0, z0, x1, y1, z1),
                         tuple(self.config['voxels_size']))
        self.size = tuple(self.config['render_size'])
        intrin = case.input('intrin')
        self.batch = len(intrin)
        self.cameras = Cameras(intrin[..., :3, :3], case.input('cam2ego'),
                               torch.eye(4).repeat(self.batch, 1, 1),
                               self.size)
        self.geometry = RenderGeometry(
            draw_rays(self.cameras, self.size, 'grid'), grid, self.batch)
        self.sampling = Sampling.of_author(grid, self.config['stepsize'])

    def compare(self, name, got):
        self.golden.compare(self.case, name, got)

    def volume(self, name):
        """Density logits (B V,) and semantics (B V, C) that require grad."""
        if name == 'random':
            density = self.case.input('density').flatten()
            semantics = self.case.input('semantics').movedim(1, -1)
            semantics = semantics.flatten(0, -2)
        else:
            labels = self.case.input('room').flatten().long()
            free = self.config['semantic_dim']
            density = torch.where(labels == free, -10., 10.)
            semantics = 10. * F.one_hot(labels, free + 1)[:, :free].float()
        return (density.clone().requires_grad_(),
                semantics.contiguous().requires_grad_())

    def maps(self, values):
        """(B R, ...) -> (B, N, ..., h, w)."""
        values = values.view(self.batch, -1, *self.size, *values.shape[1:])
        return values if values.dim() == 4 else values.movedim(-1, 2)

    def voxels(self, values):
        """(B V, ...) -> (B, C, X, Y, Z)."""
        return values.view(self.batch, *self.geometry.grid.shape,
                           -1).movedim(-1, 1)

    def rays(self, values):
        """(B R, ...) -> (B, R, ...)."""
        return values.unflatten(0, (self.batch, -1))


def test_golden_rays_and_samples(case):
    rays, sampling = case.geometry.rays, case.sampling
    case.compare('rays_o', rays.origins.view(-1, *case.size, 3))
    case.compare('rays_d', rays.directions.view(-1, *case.size, 3))
    case.compare('n_samples', torch.tensor([sampling.num_samples]))
    case.compare('voxel_size',
                 torch.tensor([sampling.step / case.config['stepsize']]))
    t = torch.arange(sampling.num_samples) * sampling.step
    case.compare('t', t[None])
    points = rays.origins[:, None] + rays.directions[:, None] * t[:, None]
    case.compare('samples', points)
    grid = case.geometry.grid
    inside = ((points >= torch.tensor(grid.minimum)) &
              (points <= torch.tensor(grid.maximum))).all(-1)
    case.compare('samples_inside', inside.to(torch.uint8))


@pytest.mark.parametrize('backend', ['torch', 'cpp'])
@pytest.mark.parametrize('name', ['random', 'room'])
def test_golden_render_and_its_gradients(case, name, backend):
    if backend == 'cpp' and cpp.why_not_compiled():
        pytest.skip(cpp.why_not_compiled())
    density, semantics = case.volume(name)
    depth, rendered, no_hit = render_samples(
        density, semantics, case.geometry, case.sampling, backend=backend)
    depth = case.maps(depth.clamp(*case.config['depth_range']))
    rendered = case.maps(rendered)
    case.compare(f'{name}/depth', depth)
    case.compare(f'{name}/semantics', rendered)
    case.compare(f'{name}/weight_sum', case.rays(1 - no_hit))
    loss = depth.sum() + (rendered * case.case.input('cotangent')).sum()
    loss.backward()
    case.compare(f'{name}/grad_density', case.voxels(density.grad))
    case.compare(f'{name}/grad_semantics', case.voxels(semantics.grad))
    truth = case.case.input('gt_depth')
    silog = scale_invariant_log(depth.detach()[truth > 0], truth[truth > 0],
                                case.config['variance_focus'])
    case.compare(f'{name}/silog', silog)


@pytest.mark.parametrize('name', ['random', 'room'])
def test_golden_weights(case, name):
    density, _ = case.volume(name)
    weights, no_hit = sampled_weights(density, case.geometry, case.sampling)
    case.compare(f'{name}/weights', case.rays(weights))
    torch.testing.assert_close(weights.sum(1) + no_hit,
                               torch.ones_like(no_hit))


@pytest.mark.parametrize('name', ['random', 'room'])
def test_golden_masked_render_by_the_registered_module(case, name):
    """Chosen pixels, no clamp, logits in and semantics out."""
    density, semantics = case.volume(name)
    renderer = VolumeRenderer(
        case.geometry.grid.point_cloud_range,
        case.size,
        density='softplus',
        min_transmittance=0.,
        sampling='author')
    chosen = case.case.input('render_mask').flatten().nonzero().squeeze(1)
    geometry = renderer.geometry(
        case.geometry.rays.select(chosen), case.cameras,
        case.geometry.grid.shape)
    logits = torch.cat((semantics, -density[:, None]), dim=1)
    render = renderer(
        logits.view(case.batch, *case.geometry.grid.shape, -1), geometry)
    case.compare(f'masked/{name}_depth', render.depth)
    case.compare(f'masked/{name}_semantics', render.semantics)


def test_golden_voxel_centre_alignment(case):
    """The author's class with ``align_corners`` off."""
    density, semantics = case.volume('room')
    sampling = Sampling(case.sampling.num_samples, case.sampling.step, False)
    depth, _, _ = render_samples(density, semantics, case.geometry, sampling)
    case.compare('align_false/room_depth',
                 case.maps(depth.clamp(*case.config['depth_range'])))
