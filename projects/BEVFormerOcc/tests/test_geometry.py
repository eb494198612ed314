"""Where queries look: deformable attention, cameras, the previous BEV."""

import numpy as np
import pytest
import torch

from radocc_plugin.datasets.poses import can_bus_vector, pose_matrix, relative_can_bus
from radocc_plugin.geometry import Cameras
from radocc_plugin.models.bevformer import GridMask, current_frame, deformable_attention
from radocc_plugin.models.bevformer.ego_motion import bev_angle, bev_shift, rotate_bev
from radocc_plugin.models.bevformer.grid_mask import bars
from radocc_plugin.models.bevformer.pillars import list_seen_queries, pillar_points, project_pillars
from radocc_plugin.occ3d import POINT_CLOUD_RANGE
from tests.support.drives import Drive, stream_batch

SHAPES = [(4, 6), (2, 3)]


def attention_inputs(dtype=torch.double):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.rand(*shape, generator=generator, dtype=dtype)

    value = draw(2, 30, 3, 4) - 0.5
    locations = 1.4 * draw(2, 5, 3, 2, 3, 2) - 0.2
    return [x.requires_grad_() for x in (value, locations, draw(2, 5, 3, 2, 3))]


def naive_attention(value, locations, weights):
    """A loop over everything with bilinear weights by hand."""
    batch, queries, heads, levels, points, _ = locations.shape
    out = value.new_zeros(batch, queries, heads, value.shape[-1])
    for b, q, h, level, p in np.ndindex(batch, queries, heads, levels, points):
        start = sum(a * c for a, c in SHAPES[:level])
        height, width = SHAPES[level]
        x, y = (
            locations[b, q, h, level, p].tolist()[i] * n - 0.5
            for i, n in enumerate((width, height))
        )
        for column in (int(np.floor(x)), int(np.floor(x)) + 1):
            for row in (int(np.floor(y)), int(np.floor(y)) + 1):
                if 0 <= column < width and 0 <= row < height:
                    share = (1 - abs(x - column)) * (1 - abs(y - row))
                    out[b, q, h] += (
                        share
                        * weights[b, q, h, level, p]
                        * value[b, start + row * width + column, h]
                    )
    return out.flatten(2)


@pytest.mark.parametrize('max_sampled', [1, 200, 2**20])
def test_deformable_attention_is_the_naive_sum(max_sampled):
    value, locations, weights = attention_inputs()
    out = deformable_attention(value, SHAPES, locations, weights, max_sampled=max_sampled)
    with torch.no_grad():
        torch.testing.assert_close(out, naive_attention(value, locations, weights))


def test_deformable_attention_gradients_in_chunks():
    assert torch.autograd.gradcheck(
        lambda *args: deformable_attention(args[0], SHAPES, *args[1:], max_sampled=60),
        attention_inputs(),
        fast_mode=True,
    )


def test_deformable_attention_names_what_does_not_fit():
    value, locations, weights = attention_inputs()
    for name, args in dict(
        value=(value[:, 1:], locations, weights),
        sampling_locations=(value, locations[:, :, :, :1], weights),
        attention_weights=(value, locations, weights[..., :1]),
    ).items():
        with pytest.raises(ValueError, match=name):
            deformable_attention(args[0], SHAPES, *args[1:])


def test_deformable_attention_keeps_float32_under_autocast():
    inputs = attention_inputs(torch.float32)
    expected = deformable_attention(inputs[0], SHAPES, *inputs[1:])
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = deformable_attention(inputs[0], SHAPES, *inputs[1:])
    assert torch.equal(out, expected)


@pytest.mark.parametrize('signs', [(1, 1), (-1, 1), (1, -1)])
def test_pillars_project_as_our_cameras_do(signs):
    """Raw pixels of the augmented ego frame, then the image augmentation."""
    drive = Drive(1, bda_mat=np.diag([*signs, 1.0, 1.0]))
    inputs, samples = stream_batch((drive, 0))
    augmentation = np.tile(np.eye(4), (6, 1, 1))
    augmentation[:, :2, :2] = [[0.9, 0.1], [-0.1, 0.9]]
    augmentation[:, :2, 3] = [3, -2]
    samples[0].set_metainfo(dict(img_aug_mat=augmentation))
    frame = current_frame(inputs['imgs'], samples)
    shape = tuple(inputs['imgs'].shape[-2:])
    points = pillar_points((10, 12), 4, POINT_CLOUD_RANGE)
    uv, inside = project_pillars(points, POINT_CLOUD_RANGE, frame.ego2img, shape)
    low, high = torch.tensor(POINT_CLOUD_RANGE).view(2, 3)
    metres = (low + points * (high - low)).transpose(0, 1).reshape(1, -1, 3)
    pixels, depth = Cameras.from_data_samples(samples).project(metres)
    matrix = torch.from_numpy(augmentation).float()
    pixels = (matrix[:, None, :2, :2] @ pixels[..., None]).squeeze(-1) + matrix[:, None, :2, 3]
    fractions = (pixels / torch.tensor(shape[::-1])).view_as(uv)
    expected = ((fractions > 0) & (fractions < 1)).all(-1) & (depth.view(inside.shape) > 1e-5)
    assert inside.any() and torch.equal(inside, expected)
    torch.testing.assert_close(uv[inside], fractions[inside], rtol=1e-4, atol=1e-4)


def test_each_sample_lists_the_queries_that_its_own_cameras_see():
    generator = torch.Generator().manual_seed(0)
    inside = torch.rand(3, 2, 7, 4, generator=generator) < 0.2
    inside[0, 1] = False  # a camera that sees nothing
    uv = torch.rand(3, 2, 7, 4, 2, generator=generator)
    seen = list_seen_queries(uv, inside)
    for b, n in np.ndindex(3, 2):
        queries = seen.index[b, n][seen.valid[b, n]].tolist()
        assert queries == [q for q in range(7) if inside[b, n, q].any()]
        assert torch.equal(seen.points[b, n][seen.valid[b, n]], uv[b, n, queries])
    assert torch.equal(seen.cameras, inside.any(-1).sum(1))


def moved(yaw, turn, way):
    """CAN bus vector and poses of an ego that moved from a frame to the next.

    Returns:
        The vector relative to the frame before, (1, 18), and previous to
        current ego frame, (4, 4).
    """
    poses = [((yaw, (400.0, 300.0, 0.0))), (yaw + turn, (400.0 + way[0], 300.0 + way[1], 0.0))]
    quaternions = [(np.cos(a / 2), 0, 0, np.sin(a / 2)) for a, _ in poses]
    vectors = np.stack([can_bus_vector(q, place) for q, (_, place) in zip(quaternions, poses)])
    before, now = (pose_matrix(q, place) for q, (_, place) in zip(quaternions, poses))
    return relative_can_bus(vectors, [0, 0])[0][1:], np.linalg.inv(now) @ before


@pytest.mark.parametrize('signs', [(1, 1), (-1, 1), (1, -1), (-1, -1)])
@pytest.mark.parametrize(
    'yaw, turn, way',
    [(0.0, 0.0, (4, 0)), (0.7, 0.3, (3, 2)), (3.1, 0.2, (-2, 5)), (-2.0, -0.4, (0, -6))],
)
def test_a_standing_thing_is_found_in_the_previous_bev(yaw, turn, way, signs):
    """In the ego frame; the published formula looks a quarter turn away."""
    can_bus, previous2current = moved(yaw, turn, way)
    bda = np.diag([*signs, 1.0, 1.0])
    low, high = np.reshape(POINT_CLOUD_RANGE, (2, 3))[:, :2]
    cells = 200
    thing = np.array([12.2, -7.8, 0, 1])  # previous ego frame, cell centre
    previous_bev = torch.zeros(cells, cells)
    column, row = ((bda @ thing)[:2] - low) / (high - low) * cells
    # nearest cells may miss a single one
    previous_bev[int(row) - 1 : int(row) + 2, int(column) - 1 : int(column) + 2] = 1
    turned = rotate_bev(
        previous_bev.view(1, -1, 1).expand(-1, -1, 2),
        (cells, cells),
        bev_angle(can_bus, bda[None]),
        (cells / 2, cells / 2),
    )[0, :, 0]
    found = turned.view(cells, cells).nonzero().double().flip(1) + 0.5
    assert 5 <= len(found) <= 13
    now = (bda @ previous2current @ thing)[:2]
    shift = bev_shift(can_bus, bda[None], POINT_CLOUD_RANGE, 'ego')[0]
    place = ((now - low) / (high - low) + shift.numpy()) * cells
    np.testing.assert_allclose(found.mean(0), place, atol=1.0)

    # published: axes of the LiDAR frame, x right and y forward
    lidar = bev_shift(can_bus, np.eye(4)[None], POINT_CLOUD_RANGE, 'lidar')[0]
    ego = bev_shift(can_bus, np.eye(4)[None], POINT_CLOUD_RANGE, 'ego')[0]
    torch.testing.assert_close(lidar, torch.stack((-ego[1], ego[0])))


def test_no_motion_moves_nothing():
    can_bus, _ = moved(0.4, 0.0, (0, 0))
    bda = np.eye(4)[None]
    assert not bev_shift(can_bus, bda, POINT_CLOUD_RANGE).any()
    bev = torch.randn(1, 6 * 8, 3)
    assert torch.equal(rotate_bev(bev, (6, 8), bev_angle(can_bus, bda), (4, 3)), bev)


@pytest.fixture(scope='module')
def dump(shared):
    """What published code fed to its network on four keyframes, float16."""
    folder = shared / 'data/real/sequence_scene-0103/frames'
    if not folder.is_dir():
        pytest.skip(f'{folder} is absent')
    return [
        {path.stem: np.fromfile(path, np.float16) for path in sample.glob('*.raw')}
        for sample in sorted(folder.iterdir())
    ]


def rounded_to(half):
    """The numbers that float16 rounds to one: lower and upper, float64."""
    half = np.float16(half)
    below, above = (np.nextafter(half, np.float16(end)).astype(float) for end in (-np.inf, np.inf))
    return (below + float(half)) / 2, (above + float(half)) / 2


def test_the_vector_is_that_of_published_code_on_real_frames(dump):
    """A quaternion's scalar part four times; the yaw of the same pose."""
    for frame in dump:
        published = frame['can_bus']
        low, high = rounded_to(published[16])
        scalars = []
        for yaw in (low, high):
            half_turn = np.array([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)])
            vector = can_bus_vector(half_turn, [0, 0, 0])
            assert np.ptp(vector[3:7]) == 0
            np.testing.assert_allclose(vector[16:], [yaw, np.degrees(yaw)])
            scalars.append(vector[3])
        # a small part of nuScenes' turn is about other axes than z
        assert min(scalars) - 1e-3 <= published[3] <= max(scalars) + 1e-3
        assert (published[3:7] == published[3]).all()


def test_the_shift_is_that_of_published_code_on_real_frames(dump):
    metres = 102.4  # of BEVFormer's detection range
    assert len(dump) == 4
    for frame in dump[1:]:
        vectors = []
        for yaw in rounded_to(frame['can_bus'][16]):
            vector = frame['can_bus'].astype(float)
            vector[16] = yaw
            vectors.append(vector)
        shifts = (
            bev_shift(
                np.stack(vectors),
                np.tile(np.eye(4), (2, 1, 1)),
                (-metres / 2, -metres / 2, -5, metres / 2, metres / 2, 3),
                'lidar',
            )
            .double()
            .numpy()
        )
        # the way and the answer are known to float16 only, too
        slack = np.abs(frame['can_bus'][:2]).max() * 2**-11 / metres
        low, high = np.transpose([rounded_to(x) for x in frame['shift']])
        assert (shifts.min(0) - slack <= high).all()
        assert (low <= shifts.max(0) + slack).all()


def published_grid(height, width, period, bar, starts):
    """GridMask as BEVFormer draws it, bar by bar, on a larger canvas."""
    canvas = np.ones((int(1.5 * height), int(1.5 * width)), bool)
    for i in range(canvas.shape[0] // period):
        row = period * i + starts[0]
        canvas[row : min(row + bar, canvas.shape[0])] = False
    for i in range(canvas.shape[1] // period):
        column = period * i + starts[1]
        canvas[:, column : min(column + bar, canvas.shape[1])] = False
    top, left = ((size - inner) // 2 for size, inner in zip(canvas.shape, (height, width)))
    return ~canvas[top : top + height, left : left + width]


@pytest.mark.parametrize('height, width', [(37, 50), (60, 21), (8, 8)])
def test_grid_mask_is_the_published_drawing(height, width):
    generator = np.random.default_rng(0)
    for _ in range(60):
        period = generator.integers(2, height)
        bar = min(max(int(period * 0.5 + 0.5), 1), period - 1)
        starts = generator.integers(0, period, 2)
        rows, columns = (
            bars(size, int(period), int(bar), int(start), torch.device('cpu'))
            for size, start in zip((height, width), starts)
        )
        expected = published_grid(height, width, period, bar, starts)
        np.testing.assert_array_equal(rows[:, None] | columns, expected)


def test_grid_mask_keeps_as_much_of_a_full_image_as_published():
    """73.7 % in the mean, 63.8 % in the twentieth part; see the facts."""
    mask = GridMask(probability=1.0).train()
    torch.manual_seed(0)
    kept = torch.stack([mask(torch.ones(1, 1, 928, 1600)).mean() for _ in range(400)])
    assert abs(kept.mean() - 0.737) < 3 * kept.std() / 20
    assert abs(kept.quantile(0.05) - 0.638) < 0.02


def test_grid_mask_keeps_bars_in_training_only():
    images = torch.ones(2, 3, 40, 60)
    mask = GridMask(probability=1.0)
    torch.manual_seed(0)
    masked = mask.train()(images)
    kept = masked[0, 0].bool()
    assert torch.equal(masked, kept.expand_as(images).float())
    # a bar is a whole row or a whole column
    rows, columns = kept.all(1), kept.all(0)
    assert torch.equal(kept, rows[:, None] | columns) and not kept.all()
    assert mask.eval()(images) is images
    assert GridMask(probability=0.0).train()(images) is images
    with pytest.raises(ValueError, match='ratio'):
        GridMask(ratio=2.0)
