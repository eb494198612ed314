import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory
from mmengine.dataset import pseudo_collate

from radocc_plugin.structures import OccData, OccDataPreprocessor, OccDataSample


def _item(value, shape=(2, 3, 4, 6), **inputs):
    image = torch.full(shape, 0, dtype=torch.uint8)
    image[:, 0] = value  # red only
    sample = OccDataSample(metainfo=dict(token=f'token{value}', cams=('a',)))
    sample.gt_depth = torch.ones(2, 4, 6)
    return dict(inputs=dict(img=image, **inputs), data_samples=sample)


def test_images_are_stacked_and_normalised_and_the_rest_is_kept():
    points = torch.rand(7, 5)
    batch = pseudo_collate([_item(10, points=points), _item(20, points=points)])
    out = OccDataPreprocessor(mean=(4, 5, 6), std=(2, 1, 3))(batch)
    images = out['inputs']['imgs']
    assert images.shape == (2, 2, 3, 4, 6) and images.dtype == torch.float32
    assert images[:, 0, :, 0, 0].tolist() == [[3, -5, -2], [8, -5, -2]]
    assert [len(p) for p in out['inputs']['points']] == [7, 7]
    assert [s.token for s in out['data_samples']] == ['token10', 'token20']
    assert out['data_samples'][0].cams == ('a',)


def test_a_batch_without_points_has_none():
    out = OccDataPreprocessor()(pseudo_collate([_item(10)]))
    assert set(out['inputs']) == {'imgs'}


def test_bgr_order_pairs_blue_with_the_first_statistic():
    out = OccDataPreprocessor((4, 5, 6), (2, 1, 3), channel_order='bgr')(pseudo_collate([_item(9)]))
    assert out['inputs']['imgs'][0, 0, :, 0, 0].tolist() == [-2, -5, 1]


def test_it_adds_nothing_to_a_checkpoint():
    assert not OccDataPreprocessor().state_dict()


def test_images_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match='img.*one shape'):
        OccDataPreprocessor()(pseudo_collate([_item(1), _item(1, (2, 3, 5, 6))]))


@pytest.mark.parametrize(
    'bad', (dict(channel_order='gbr'), dict(mean=(1, 2)), dict(pad_size_divisor=0))
)
def test_bad_settings_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        OccDataPreprocessor(**bad)


def test_a_loader_pins_every_tensor_of_a_sample(monkeypatch):
    """Pinned and then moved in the background; only there is a GPU to see it."""
    monkeypatch.setattr(torch.Tensor, 'pin_memory', lambda self, device=None: self + 0)
    sample = OccDataSample(metainfo=dict(token='a'))
    sample.gt_occ = OccData(semantics=torch.zeros(2, 2, 2), mask_camera=torch.ones(2, 2, 2))
    sample.gt_depth = torch.ones(1, 2, 3)
    batch = dict(inputs=dict(img=[torch.ones(2)]), data_samples=[sample])
    pinned = pin_memory(batch)
    (copy,) = pinned['data_samples']
    assert type(copy) is OccDataSample and copy.token == 'a'
    for after, before in (
        (copy.gt_depth, sample.gt_depth),
        (copy.gt_occ.semantics, sample.gt_occ.semantics),
        (copy.gt_occ.mask_camera, sample.gt_occ.mask_camera),
        (pinned['inputs']['img'][0], batch['inputs']['img'][0]),
    ):
        assert torch.equal(after, before) and after.data_ptr() != before.data_ptr()
