"""Parity with the published renderer, from the numbers of a case."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from radocc_plugin.geometry import Cameras, VoxelGrid, draw_rays
from radocc_plugin.losses import scale_invariant_log
from radocc_plugin.rendering import RenderGeometry, author_samples, render_like_author
from tests.support.golden import golden_folder


def names():
    return sorted(path.stem for path in golden_folder().glob('radocc_render*.json'))


@pytest.fixture(params=names())
def case(request, golden):
    """The case with its geometry."""
    return Case(golden, golden.case(request.param))


class Case:
    def __init__(self, golden, case):
        self.golden, self.case, self.config = golden, case, case.config
        x0, x1, y0, y1, z0, z1 = self.config['real_size']
        grid = VoxelGrid((x0, y0, z0, x1, y1, z1), tuple(self.config['voxels_size']))
        self.size = tuple(self.config['render_size'])
        intrin = case.input('intrin')
        self.batch = len(intrin)
        self.cameras = Cameras(
            intrin[..., :3, :3],
            case.input('cam2ego'),
            torch.eye(4).repeat(self.batch, 1, 1),
            self.size,
        )
        self.geometry = RenderGeometry(draw_rays(self.cameras, self.size, 'grid'), grid, self.batch)

    def render(self, density, semantics, **options):
        return render_like_author(
            density, semantics, self.geometry, stepsize=self.config['stepsize'], **options
        )

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
            density = torch.where(labels == free, -10.0, 10.0)
            semantics = 10.0 * F.one_hot(labels, free + 1)[:, :free].float()
        return (density.clone().requires_grad_(), semantics.contiguous().requires_grad_())

    def maps(self, values):
        """(B R, ...) -> (B, N, ..., h, w)."""
        values = values.view(self.batch, -1, *self.size, *values.shape[1:])
        return values if values.dim() == 4 else values.movedim(-1, 2)

    def voxels(self, values):
        """(B V, ...) -> (B, C, X, Y, Z)."""
        return values.view(self.batch, *self.geometry.grid.shape, -1).movedim(-1, 1)

    def rays(self, values):
        """(B R, ...) -> (B, R, ...)."""
        return values.unflatten(0, (self.batch, -1))


def test_golden_rays_and_samples(case):
    rays = case.geometry.rays
    number, step = author_samples(case.geometry.grid, case.config['stepsize'])
    case.compare('rays_o', rays.origins.view(-1, *case.size, 3))
    case.compare('rays_d', rays.directions.view(-1, *case.size, 3))
    case.compare('n_samples', torch.tensor([number]))
    case.compare('voxel_size', torch.tensor([step / case.config['stepsize']]))
    t = torch.arange(number) * step
    case.compare('t', t[None])
    points = rays.origins[:, None] + rays.directions[:, None] * t[:, None]
    case.compare('samples', points)
    grid = case.geometry.grid
    inside = ((points >= torch.tensor(grid.minimum)) & (points <= torch.tensor(grid.maximum))).all(
        -1
    )
    case.compare('samples_inside', inside.to(torch.uint8))


@pytest.mark.parametrize('name', ['random', 'room'])
def test_golden_render_and_its_gradients(case, name):
    density, semantics = case.volume(name)
    depth, rendered, no_hit, weights = case.render(density, semantics)
    case.compare(f'{name}/weights', case.rays(weights))
    torch.testing.assert_close(weights.sum(1) + no_hit, torch.ones_like(no_hit))
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
    silog = scale_invariant_log(
        depth.detach()[truth > 0], truth[truth > 0], case.config['variance_focus']
    )
    case.compare(f'{name}/silog', silog)


@pytest.mark.parametrize('name', ['random', 'room'])
def test_golden_masked_render(case, name):
    """Chosen pixels, no clamp."""
    chosen = case.case.input('render_mask').flatten().nonzero().squeeze(1)
    case.geometry = replace(case.geometry, rays=case.geometry.rays.select(chosen))
    depth, rendered, _, _ = case.render(*case.volume(name))
    case.compare(f'masked/{name}_depth', depth)
    case.compare(f'masked/{name}_semantics', rendered)


def test_golden_voxel_centre_alignment(case):
    """The author's class with ``align_corners`` off."""
    render = case.render(*case.volume('room'), align_corners=False)
    case.compare(
        'align_false/room_depth', case.maps(render.depth.clamp(*case.config['depth_range']))
    )
