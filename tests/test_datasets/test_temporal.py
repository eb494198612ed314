"""Past frames, queues and streams, on the synthetic world."""

import numpy as np
import pytest
from mmengine.dataset import pseudo_collate

from radocc_plugin.datasets import (
    AugmentMultiViewImages,
    DistortMultiViewImages,
    LoadMultiViewImages,
    Occ3DNuScenesDataset,
    PackOccInputs,
)
from radocc_plugin.datasets.info_file import load_infos, save_infos
from radocc_plugin.datasets.poses import relative_can_bus
from radocc_plugin.datasets.sequences import sequence_groups, starts_of
from radocc_plugin.structures import OccDataPreprocessor

FRAMES = 4  # of each scene
RANDOM = dict(resize=(-0.2, 0.3), flip_prob=0.5, rotate=(-20, 20))


@pytest.fixture
def dataset(world):

    def make(**kwargs):
        kwargs.setdefault('ann_file', 'radocc_infos_train.pkl')
        return Occ3DNuScenesDataset(data_root=str(world), **kwargs)

    return make


@pytest.mark.parametrize('key_ego', ('lidar', 'CAM_FRONT_LEFT', 'CAM_FRONT'))
def test_adjacent_cameras_see_through_the_current_ego_frame(dataset, world, key_ego):
    infos = load_infos(world / 'radocc_infos_train.pkl')['data_list']
    sample = dataset(key_ego=key_ego, adjacent=(1, 2)).get_data_info(3)
    for frame, info in zip(sample['adjacent'], (infos[2], infos[1])):
        assert frame['token'] == info['token'] and frame['exists']
        for name, cam2ego in zip(sample['cam_names'], frame['cam2ego']):
            image = info['images'][name]
            np.testing.assert_allclose(
                sample['ego2global'] @ cam2ego, image['ego2global'] @ image['cam2ego'], atol=1e-8
            )
        assert [p.split('/samples/')[1] for p in frame['img_path']] == [
            info['images'][name]['img_path'].split('samples/')[1] for name in sample['cam_names']
        ]
        own = dataset(key_ego=key_ego).get_data_info(infos.index(info))
        np.testing.assert_allclose(frame['ego2global'], own['ego2global'])
    assert 'adjacent' not in dataset().get_data_info(3)


def test_before_a_scene_begins_the_current_frame_is_repeated(dataset):
    data = dataset(adjacent=(1, 3))
    for index in range(2 * FRAMES):
        sample = data.get_data_info(index)
        place = index % FRAMES
        for offset, frame in zip((1, 3), sample['adjacent']):
            assert frame['exists'] == (place >= offset)
            if place >= offset:
                past = data.get_data_info(index - offset)
                assert frame['token'] == past['token']
            else:
                assert frame['token'] == sample['token']
                assert frame['img_path'] == sample['img_path']
                np.testing.assert_array_equal(frame['cam2ego'], sample['cam2ego'])


def test_published_code_stops_at_the_head_of_the_list(dataset):
    """As counting back in a list does, here with that very rule."""
    data = dataset(adjacent=(1, 3), repeat_first=True)
    infos = [data.get_data_info(i) for i in range(2 * FRAMES)]
    for index, info in enumerate(infos):
        for offset, frame in zip((1, 3), info['adjacent']):
            chosen = infos[max(index - offset, 0)]
            if chosen['scene_token'] != info['scene_token']:
                chosen = info
            assert frame['token'] == chosen['token']
            np.testing.assert_allclose(frame['ego2global'], chosen['ego2global'], atol=1e-9)
    assert infos[1]['adjacent'][1]['exists']
    assert not infos[FRAMES]['adjacent'][0]['exists']


def test_a_past_frame_that_was_cut_off_is_named(dataset):
    data = dataset(adjacent=(1,), indices=[0, 1, 3])
    assert data.get_data_info(1)['adjacent'][0]['exists']
    with pytest.raises(ValueError, match='infos_train.pkl.*whole scenes'):
        data.get_data_info(2)
    whole = dataset(adjacent=(1,))
    assert whole.get_subset([0, 1]).get_data_info(1)['adjacent'][0]['exists']
    with pytest.raises(ValueError, match='whole scenes'):
        whole.get_subset([0, 2]).get_data_info(1)
    whole.get_subset_(-FRAMES)
    sample = whole.get_data_info(FRAMES - 1)
    assert sample['adjacent'][0]['token'] == sample['prev']


def test_a_camera_draws_once_for_all_its_frames(dataset):
    np.random.seed(0)
    sample = dataset(adjacent=(1, 2), pipeline=[LoadMultiViewImages()])[3]
    raw = [list(sample['img']), *map(list, sample['adjacent_img'])]
    # the same picture in every frame shows what was done to each
    sample['adjacent_img'] = [list(raw[0]) for _ in range(2)]
    augmented = AugmentMultiViewImages((24, 64), **RANDOM)(sample)
    for frame in augmented['adjacent_img']:
        for image, current in zip(frame, augmented['img']):
            np.testing.assert_array_equal(image, current)
    assert not np.allclose(augmented['img_aug_mat'][0], augmented['img_aug_mat'][1])
    assert np.any(np.asarray(raw[0][0]) != np.asarray(raw[1][0]))


def test_a_batch_keeps_the_metadata_of_every_sample(dataset):
    data = dataset(
        adjacent=(1, 2),
        can_bus='measured',
        sequences_split=1,
        key_ego='CAM_FRONT',
        pipeline=[
            LoadMultiViewImages(),
            AugmentMultiViewImages((24, 64), **RANDOM),
            PackOccInputs(),
        ],
    )
    items = [data[1], data[6]]
    batch = OccDataPreprocessor(pad_size_divisor=32)(pseudo_collate(items))
    assert batch['inputs']['imgs'].shape == (2, 6, 3, 32, 64)
    assert batch['inputs']['adjacent_imgs'].shape == (2, 2, 6, 3, 32, 64)
    for index, sample in zip((1, 6), batch['data_samples']):
        info = data.get_data_info(index)
        for name in ('token', 'scene_token', 'prev', 'start_of_sequence', 'sequence_group_idx'):
            assert getattr(sample, name) == info[name]
            assert type(getattr(sample, name)) is type(info[name])
        for name in ('can_bus', 'ego2prev_ego', 'cam2ego', 'bda_mat'):
            np.testing.assert_array_equal(getattr(sample, name), info[name])
        for name, shape in dict(
            exists=(2,), cam2ego=(2, 6, 4, 4), ego2global=(2, 4, 4), can_bus=(2, 18), timestamp=(2,)
        ).items():
            values = getattr(sample, f'adjacent_{name}')
            assert values.shape == shape
            np.testing.assert_array_equal(values, [frame[name] for frame in info['adjacent']])
        assert sample.adjacent_token == [frame['token'] for frame in info['adjacent']]
        assert len(sample.img_path) == 6 and sample.img_aug_mat.shape[0] == 6
    first, second = batch['data_samples']
    assert first.adjacent_exists.tolist() == [True, False]
    # a frame that does not exist has the current images
    images = batch['inputs']
    assert (images['adjacent_imgs'][0, 1] == images['imgs'][0]).all()
    assert (images['adjacent_imgs'][1, 1] != images['imgs'][1]).any()


def test_padding_is_zero_after_normalisation_and_below(dataset):
    data = dataset(
        pipeline=[LoadMultiViewImages(), AugmentMultiViewImages((24, 60)), PackOccInputs()]
    )
    batch = pseudo_collate([data[0]])
    plain = OccDataPreprocessor()(batch)['inputs']['imgs']
    padded = OccDataPreprocessor(pad_size_divisor=32)(batch)['inputs']['imgs']
    assert padded.shape[-2:] == (32, 64)
    assert (padded[..., :24, :60] == plain).all()
    assert not padded[..., 24:, :].any() and not padded[..., 60:].any()


def test_a_queue_leaves_one_of_the_last_frames_out(dataset):
    data = dataset(queue_length=3, can_bus='poses')
    tokens = [data.get_data_info(i)['token'] for i in range(FRAMES)]
    drawn = set()
    np.random.seed(0)
    for _ in range(30):
        frames = data.get_data_info(3)['adjacent']
        assert all(frame['exists'] for frame in frames)
        drawn.add(tuple(tokens.index(frame['token']) for frame in frames))
    assert drawn == {(2, 1), (2, 0), (1, 0)}
    assert not any(f['exists'] for f in data.get_data_info(0)['adjacent'])


def test_frames_of_a_queue_get_colours_of_their_own(dataset):
    np.random.seed(0)
    sample = dataset(adjacent=(1,), pipeline=[LoadMultiViewImages()])[1]
    before = [np.asarray(image) for image in sample['img']]
    sample = DistortMultiViewImages()(sample)
    assert sample['img'][0].size == sample['adjacent_img'][0][0].size
    changes = [
        np.abs(np.asarray(image).astype(int) - old).mean()
        for image, old in zip(sample['img'], before)
    ]
    assert min(changes) > 0 and len(set(changes)) == 6
    still = DistortMultiViewImages(
        brightness_delta=0, contrast_range=(1, 1), saturation_range=(1, 1), hue_delta=0
    )
    still.distort._random_flags = lambda: (0, 1, 1, 1, 1, 0, 0, 1, 1, 0, None)
    unchanged = still(dict(img=list(sample['img'])))['img'][2]
    assert np.abs(np.asarray(unchanged).astype(int) - np.asarray(sample['img'][2])).max() <= 1


def test_can_bus_without_measurements(dataset, world, tmp_path):
    measured = dataset(can_bus='measured').get_data_info(1)['can_bus']
    poses = dataset(can_bus='poses').get_data_info(1)['can_bus']
    assert measured[7:16].any() and not poses[7:16].any()
    rest = [*range(7), 16, 17]
    np.testing.assert_array_equal(measured[rest], poses[rest])
    infos = load_infos(world / 'radocc_infos_train.pkl')
    for info in infos['data_list']:
        info['can_bus'][7:16] = np.nan
    path = tmp_path / 'no_expansion.pkl'
    save_infos(infos, path)
    with pytest.raises(ValueError, match="no_expansion.pkl.*can_bus='poses'"):
        dataset(ann_file=str(path), can_bus='measured').get_data_info(1)
    data = dataset(ann_file=str(path), can_bus='poses').get_data_info(1)
    np.testing.assert_array_equal(data['can_bus'], poses)


def test_golden_bevformer_queue_can_bus(golden):
    case = golden.case('bevformer_queue')
    relative, has_previous = relative_can_bus(
        case.input('can_bus_absolute').numpy(), case.input('scene').tolist()
    )
    golden.compare(case, 'can_bus_relative', relative)
    golden.compare(case, 'prev_bev_exists', has_previous)


@pytest.mark.parametrize(
    'split, lengths', ((1, [5, 3, 1]), (2, [3, 2, 2, 1, 1]), (4, [2, 2, 1, 1, 1, 1, 1]))
)
def test_scenes_are_cut_into_sequences(split, lengths):
    groups = sequence_groups('aaaaabbbc', split)
    assert np.bincount(groups).tolist() == lengths
    assert (np.diff(groups) >= 0).all()
    assert starts_of(groups).sum() == len(lengths)


@pytest.mark.parametrize('split', (1, 2))
def test_a_stream_says_where_it_starts_and_how_the_ego_moved(dataset, split):
    data = dataset(sequences_split=split, key_ego='CAM_FRONT')
    lidar_time = dataset()
    for index in range(2 * FRAMES):
        sample = data.get_data_info(index)
        start = index % (FRAMES // split) == 0
        assert sample['start_of_sequence'] is start
        assert sample['sequence_group_idx'] == index // (FRAMES // split)
        expected = np.eye(4)
        if not start:
            before, now = (lidar_time.get_data_info(i)['ego2global'] for i in (index - 1, index))
            expected = np.linalg.inv(before) @ now
            assert 0.1 < np.linalg.norm(expected[:3, 3]) < 15
        np.testing.assert_allclose(sample['ego2prev_ego'], expected, atol=1e-9)


def test_a_stream_refuses_samples_out_of_order(dataset):
    data = dataset(sequences_split=1, indices=[1, 0])
    with pytest.raises(ValueError, match='order of time|whole scenes'):
        data.get_data_info(1)


@pytest.mark.parametrize(
    'bad',
    (
        dict(adjacent=(2, 1)),
        dict(adjacent=(0,)),
        dict(queue_length=0),
        dict(queue_length=3, adjacent=(1,)),
        dict(can_bus='guess'),
        dict(sequences_split=0),
    ),
)
def test_bad_arguments_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Occ3DNuScenesDataset(lazy_init=True, **bad)
