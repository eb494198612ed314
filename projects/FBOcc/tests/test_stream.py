"""The stream: one by one, in a batch, after a resume; turned frames."""

import copy
import pickle

import pytest
import torch

from radocc_plugin.datasets.transforms.bev import bda_matrix
from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.models.fbocc.history import StreamState, cell2past_cell, cell2point, warp
from tests.support.models import build_model, make_batch
from tests.support.streams import SIZE, drive, make_frames

TINY = 'projects/FBOcc/configs/fbocc_tiny_1xb1-3e_synthetic.py'
GRID = VoxelGrid((-4, -4, -1, 4, 4, 1), (8, 8, 4))
# 20 x 20 x 4 cells
COARSE = {
    f'grid_config.{axis}': (low, high, size)
    for axis, low, high, size in (('x', -40, 40, 4.0), ('y', -40, 40, 4.0), ('z', -1, 5.4, 1.6))
}


def join(*batches):
    """One batch of several."""
    return (
        dict(imgs=torch.cat([inputs['imgs'] for inputs, _ in batches])),
        [sample for _, samples in batches for sample in samples],
    )


@pytest.fixture
def model():
    return build_model(TINY, **COARSE).eval()


def run(model, *batches):
    with torch.no_grad():
        return [model(*batch) for batch in batches]


def test_a_batch_of_sequences_is_each_alone(model):
    one, other = make_frames(0), make_frames(1)
    alone = run(model, *one), run(model, *other)
    together = run(model, *(join(a, b) for a, b in zip(one, other)))
    for frame, logits in enumerate(together):
        for slot in range(2):
            torch.testing.assert_close(logits[slot], alone[slot][frame][0], rtol=1e-4, atol=1e-4)


def test_a_sequence_goes_on_in_another_slot(model):
    one, other = make_frames(0), make_frames(1)
    expected = run(model, *(join(a, b) for a, b in zip(one, other)))
    run(model, join(one[0], other[0]))
    (swapped,) = run(model, join(other[1], one[1]))
    torch.testing.assert_close(swapped.flip(0), expected[1])


def test_frames_of_a_sequence_in_one_batch_follow_each_other(model):
    frames = make_frames(0)
    alone = run(model, *frames)
    (together,) = run(model, join(*frames))
    for logits, expected in zip(together, alone):
        torch.testing.assert_close(logits, expected[0], rtol=1e-4, atol=1e-4)


def test_slots_in_different_places_of_a_sequence_do_not_mix(model):
    frames = make_frames(0, length=4)
    expected = run(model, *frames)
    run(model, frames[0])
    run(model, join(frames[1], frames[0]))
    (together,) = run(model, join(frames[2], frames[1]))
    for slot, frame in enumerate((2, 1)):
        torch.testing.assert_close(together[slot], expected[frame][0], rtol=1e-4, atol=1e-4)


def test_the_past_matters_and_ends_with_its_sequence(model):
    frames = make_frames(0)
    first, *_, last = run(model, *frames)
    again, *_, last_again = run(model, *frames)
    assert torch.equal(first, again) and torch.equal(last, last_again)
    inputs, (sample,) = copy.deepcopy(frames[2])
    sample.set_metainfo(dict(start_of_sequence=True))
    (started,) = run(model, (inputs, [sample]))
    assert not torch.allclose(started, last)
    run(model, *make_frames(1))
    (restarted,) = run(model, (inputs, [sample]))
    assert torch.equal(started, restarted)


def test_a_resumed_stream_goes_on_as_it_would(model):
    """With its state; without, it starts anew and says so."""
    frames = make_frames(0)
    expected = run(model, *frames)[-1]
    run(model, *frames[:2])
    resumed = build_model(TINY, seed=1, **COARSE).eval()
    resumed.load_state_dict(model.state_dict())
    resumed.streams = pickle.loads(pickle.dumps(model.streams))
    assert torch.equal(run(resumed, frames[2])[0], expected)

    resumed.streams['test'] = StreamState()
    with pytest.warns(UserWarning, match='taken as a start'):
        (without,) = run(resumed, frames[2])
    inputs, (sample,) = copy.deepcopy(frames[2])
    sample.set_metainfo(dict(start_of_sequence=True))
    assert torch.equal(without, run(resumed, (inputs, [sample]))[0])


def test_a_repeated_or_skipped_frame_is_no_past(model):
    frames = make_frames(0)
    run(model, frames[0])
    with pytest.warns(UserWarning, match='taken as a start'):
        run(model, frames[2])


def test_testing_does_not_disturb_the_training(model):
    one, other = make_frames(0), make_frames(0)

    def train(*batches):
        model.train()
        for module in model.children():
            module.eval()  # the same norms, no dropout
        out = run(model, *batches)
        model.eval()
        return out

    expected = train(*one)[-1]
    train(*one[:2])
    run(model, *other[:1])
    assert torch.equal(train(one[2])[0], expected)


def test_the_state_is_no_part_of_a_checkpoint_and_has_no_gradient(model):
    keys = set(model.state_dict())
    inputs, samples = make_frames(0)[0]
    assert model.train()(inputs, samples).requires_grad
    assert set(model.state_dict()) == keys
    (memory,) = model.streams['train'].memories.values()
    assert not memory.volumes.requires_grad
    assert memory.volumes.shape == (model.num_history, 16, 20, 20, 4)


def test_missing_stream_metainfo_is_named(model):
    inputs, samples = make_batch(size=SIZE)
    with pytest.raises(ValueError, match='sequences_split'):
        model(inputs, samples)


@pytest.mark.parametrize(
    'angle, flip_x, flip_y', [(0, False, False), (20, True, False), (-13, True, True)]
)
def test_warp_finds_the_same_place_under_any_augmentation(angle, flip_x, flip_y):
    """A linear field of the past ego frame, which trilinear keeps."""
    bda = torch.from_numpy(bda_matrix(angle, 1.0, flip_x, flip_y))
    past_bda = torch.from_numpy(bda_matrix(7.0, 1.0, False, True))
    ego2prev_ego = torch.from_numpy(drive(1))
    slope = torch.tensor([0.7, -1.3, 0.4, 2.0]).double()

    def field(cell2ego):
        y, x, z = torch.meshgrid(*map(torch.arange, (8, 8, 4)), indexing='ij')
        cells = torch.stack([x, y, z, torch.ones_like(x)], -1).double()
        return cells @ cell2ego.T @ slope

    past = field(torch.linalg.inv(past_bda) @ cell2point(GRID))
    expected = field(ego2prev_ego @ torch.linalg.inv(bda) @ cell2point(GRID))
    moved = cell2past_cell(GRID, bda, ego2prev_ego, past_bda)
    warped = warp(past[None, None], moved)[0, 0]
    inside = warp(torch.ones(1, 1, 8, 8, 4).double(), moved)[0, 0] > 1 - 1e-9
    assert inside.sum() > 40
    torch.testing.assert_close(warped[inside], expected[inside])


def test_a_frame_that_stays_is_not_moved():
    volumes = torch.rand(2, 3, 8, 8, 4)
    eye = torch.eye(4).double()
    assert warp(volumes, cell2past_cell(GRID, eye, eye, eye)) is volumes
