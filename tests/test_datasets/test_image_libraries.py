"""What docs/data.md says of Pillow and OpenCV."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

DOCS = Path(__file__).resolve().parents[2] / 'docs/data.md'
ROW = re.compile(r'\| Pillow BICUBIC \(ours\), (\S+ ?\S+) \| (\S+) \|')
SIZE = (704, 396)


@pytest.fixture(scope='module')
def images(shared):
    paths = sorted((shared / 'data/nuscenes_frame').glob('*.jpg'))
    return {path: Image.open(path).convert('RGB') for path in paths}


def _resize(image, how):
    if how.startswith('Pillow'):
        return image.resize(SIZE, getattr(Image, how.split()[1]))
    flag = getattr(cv2, how.strip('`').split('.')[1])
    return cv2.resize(np.asarray(image), SIZE, interpolation=flag)


def test_both_libraries_decode_to_the_same_values(images):
    for path, image in images.items():
        blue_first = cv2.imread(str(path))
        difference = cv2.absdiff(np.asarray(image)[..., ::-1], blue_first)
        # other builds of libjpeg may round otherwise
        assert difference.max() <= 2


@pytest.mark.parametrize('how, mean', ROW.findall(DOCS.read_text()))
def test_resizing_differs_as_the_docs_say(images, how, mean):
    differences = [
        cv2.absdiff(
            np.asarray(image.resize(SIZE, Image.BICUBIC)), np.asarray(_resize(image, how))
        ).mean()
        for image in images.values()
    ]
    assert np.mean(differences) == pytest.approx(float(mean), rel=0.05)


def test_the_docs_have_all_rows():
    assert len(ROW.findall(DOCS.read_text())) == 4


def test_rotation_centres_are_half_a_pixel_apart(images):
    for image in list(images.values())[:2]:
        crop = image.resize(SIZE, Image.BICUBIC).crop((0, 140, 704, 396))
        turned = np.asarray(crop.rotate(5.4))
        shares = []
        for shift in (0.5, 0):
            matrix = cv2.getRotationMatrix2D((352 - shift, 128 - shift), 5.4, 1)
            other = cv2.warpAffine(np.asarray(crop), matrix, crop.size, flags=cv2.INTER_NEAREST)
            shares.append((turned != other).mean())
        assert shares[0] < 0.01 < 0.03 < shares[1]
