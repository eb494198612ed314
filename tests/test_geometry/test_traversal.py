import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radocc_plugin.geometry import VoxelGrid, traversal, traverse

GRID = VoxelGrid((-2, -3, 0, 3, 2, 1.5), (5, 10, 3))


def amanatides_woo(origin, direction, grid):
    """Independent incremental walk of one ray, float64: [(voxel, near, far)]."""
    size = grid.voxel_size
    near, far = 0.0, float('inf')
    for axis in range(3):
        if direction[axis] == 0:
            if not (grid.minimum[axis] <= origin[axis] < grid.maximum[axis]):
                return []
            continue
        bounds = sorted(
            (bound - origin[axis]) / direction[axis]
            for bound in (grid.minimum[axis], grid.maximum[axis])
        )
        near, far = max(near, bounds[0]), min(far, bounds[1])
    if far <= near:
        return []
    walk = []
    while near < far - 1e-12:
        probe = near + 1e-9
        cell = [
            int((origin[a] + direction[a] * probe - grid.minimum[a]) // size[a]) for a in range(3)
        ]
        leave = far
        for axis in range(3):
            if direction[axis] != 0:
                plane = cell[axis] + (direction[axis] > 0)
                bound = (grid.minimum[axis] + plane * size[axis] - origin[axis]) / direction[axis]
                leave = min(leave, bound)
        cell = [min(max(c, 0), n - 1) for c, n in zip(cell, grid.shape)]
        index = (cell[0] * grid.shape[1] + cell[1]) * grid.shape[2] + cell[2]
        walk.append((index, near, leave))
        near = leave
    return walk


def random_rays(num, seed):
    generator = torch.Generator().manual_seed(seed)
    origins = torch.rand(num, 3, generator=generator) * 10 - 5
    directions = torch.randn(num, 3, generator=generator)
    directions[::7, 0] = 0
    directions[::5, 2] = 0
    origins[::2] *= 0.3
    return origins, directions


def test_crossings_equal_an_incremental_walk():
    origins, directions = random_rays(200, 0)
    crossings = traverse(origins, directions, GRID)
    hits = 0
    for ray in range(len(origins)):
        walk = amanatides_woo(
            origins[ray].double().tolist(), directions[ray].double().tolist(), GRID
        )
        own = slice(*crossings.offsets[ray : ray + 2].tolist())
        assert crossings.voxel[own].tolist() == [index for index, _, _ in walk]
        near = torch.tensor([near for _, near, _ in walk])
        far = torch.tensor([far for _, _, far in walk])
        torch.testing.assert_close(crossings.near[own], near)
        torch.testing.assert_close(crossings.far[own], far)
        hits += bool(walk)
    assert 50 < hits < 200


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_lengths_sum_to_the_chord(seed):
    origins, directions = random_rays(30, seed)
    crossings = traverse(origins, directions, GRID)
    total = torch.zeros(30).index_add(0, crossings.ray, crossings.length)
    for ray in range(30):
        own = slice(*crossings.offsets[ray : ray + 2].tolist())
        if crossings.offsets[ray] == crossings.offsets[ray + 1]:
            assert total[ray] == 0
            continue
        chord = (crossings.far[own][-1] - crossings.near[own][0]) * directions[ray].norm()
        torch.testing.assert_close(total[ray], chord, rtol=1e-4, atol=1e-5)


def test_permuted_rays_permute_the_crossings():
    origins, directions = random_rays(50, 3)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    plain = traverse(origins, directions, GRID)
    permuted = traverse(origins[order], directions[order], GRID)
    for new, old in enumerate(order.tolist()):
        a = plain.voxel[plain.offsets[old] : plain.offsets[old + 1]]
        b = permuted.voxel[permuted.offsets[new] : permuted.offsets[new + 1]]
        assert a.tolist() == b.tolist()


def test_rays_outside_or_behind_own_nothing():
    origins = torch.tensor([[10.0, 10, 10], [10, 0, 1]])
    directions = torch.tensor([[1.0, 0, 0], [1, 0, 0]])
    crossings = traverse(origins, directions, GRID)
    for values in (crossings.voxel, crossings.near, crossings.far, crossings.length):
        assert len(values) == 0
    assert crossings.offsets.tolist() == [0, 0, 0]


def test_walks_the_same_in_parts(monkeypatch):
    """Also where a whole part misses, or meets edges."""
    generator = torch.Generator().manual_seed(0)
    origins = 4 * torch.rand(40, 3, generator=generator) - 2
    directions = torch.randn(40, 3, generator=generator)
    origins[3:6], directions[3:6] = 10, 1
    origins[20:26], directions[20:26] = torch.tensor([-2, -3, 0.0]), 1
    whole = traverse(origins, directions, GRID)
    monkeypatch.setattr(traversal, 'CPU_CHUNK', 3)
    parts = traverse(origins, directions, GRID)
    for name, values in vars(whole).items():
        assert torch.equal(getattr(parts, name), values), name
    assert len(whole.far) == len(whole.near) == whole.offsets[-1]


def test_max_parameter_ends_the_ray():
    origins, directions = torch.tensor([[-1.9, 0.1, 0.1]]), torch.tensor([[1.0, 0, 0]])
    crossings = traverse(origins, directions, GRID, max_parameter=1.4)
    assert float(crossings.length.sum()) == pytest.approx(1.4)


@pytest.mark.parametrize(
    'origins, directions, message',
    [
        (torch.zeros(2, 3), torch.zeros(2, 3), 'directions'),
        (torch.zeros(2, 3), torch.ones(3, 3), r'\(R, 3\)'),
    ],
)
def test_bad_rays_are_named(origins, directions, message):
    with pytest.raises(ValueError, match=message):
        traverse(origins, directions, GRID)
