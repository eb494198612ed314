import numpy as np
import pytest
import torch

from radocc_plugin.datasets import LoadLidarPoints, LoadMultiViewImages, LoadOcc3D, PackOccInputs
from radocc_plugin.geometry import Cameras


def test_packed_images_are_the_pixels_of_the_files(sample):
    sample = LoadMultiViewImages()(sample)
    pixels = np.asarray(sample['img'][4])
    packed = PackOccInputs()(sample)
    images = packed['inputs']['img']
    assert set(packed['inputs']) == {'img'}
    assert images.dtype == torch.uint8 and images.shape == (6, 3, 45, 80)
    np.testing.assert_array_equal(images[4].permute(1, 2, 0), pixels)


def test_the_data_sample_has_labels_and_calibration(sample):
    for transform in (LoadMultiViewImages(), LoadLidarPoints(), LoadOcc3D()):
        sample = transform(sample)
    packed = PackOccInputs()(sample)
    assert packed['inputs']['points'].dtype == torch.float32
    data_sample = packed['data_samples']
    assert data_sample.gt_occ.semantics.shape == (200, 200, 16)
    assert data_sample.token == 'token0'
    cameras = Cameras.from_data_samples([data_sample])
    np.testing.assert_allclose(cameras.cam2ego[0], sample['cam2ego'], rtol=1e-6)


def test_a_missing_meta_key_is_named(sample):
    sample = LoadMultiViewImages()(sample)
    with pytest.raises(ValueError, match="meta_keys.*'can_bus'"):
        PackOccInputs(meta_keys=('token', 'can_bus'))(sample)
