"""Camera images: loading and the image augmentation of BEVDet."""

from typing import Callable, List, Optional, Sequence, Tuple

import cv2
import numpy as np
from mmcv import imresize
from mmcv.transforms import BaseTransform
from PIL import Image

from radocc_plugin.fileio import read_image
from radocc_plugin.registry import TRANSFORMS

Crop = Tuple[int, int, int, int]  # left, upper, right, lower; pixels
_STRIP = 32  # rows; 1600 pixels of three float32 are 600 KB


@TRANSFORMS.register_module()
class LoadMultiViewImages(BaseTransform):
    """Reads the images of all cameras (``fileio.read_image``).

    Adds ``img`` (N RGB ``PIL.Image``; grey images get three equal channels,
    alpha is dropped), ``image_sizes`` (N, 2; height and width in the files),
    ``ori_shape`` and ``img_shape`` (H, W) and the identity as ``img_aug_mat``
    (N, 4, 4); for a sample with adjacent frames, ``adjacent_img``, a list of
    A such lists. A frame that does not exist repeats the list ``img`` itself.

    Args:
        pad_to: Height and width to which smaller images are padded with
            black at the right and lower edge, for cameras of different
            sizes: pixel coordinates and calibration stay as they are, and
            ``ori_shape`` is this.

    Raises:
        ValueError: If an image cannot be read, or is larger than ``pad_to``,
            or the cameras of a sample have images of different sizes
            without; names the file.
    """

    def __init__(self, pad_to: Optional[Tuple[int, int]] = None) -> None:
        self.pad_to = pad_to

    def transform(self, results: dict) -> dict:
        backend_args = results.get('backend_args')
        images = [read_image(p, backend_args) for p in results['img_path']]
        results['image_sizes'] = np.array([i.size[::-1] for i in images])
        height, width = self.pad_to or images[0].size[::-1]
        images = self._of_one_size(images, results['img_path'], (width, height))
        if 'adjacent' in results:
            results['adjacent_img'] = [
                self._of_one_size(
                    [read_image(p, backend_args) for p in frame['img_path']],
                    frame['img_path'],
                    (width, height),
                )
                if frame['exists']
                else images
                for frame in results['adjacent']
            ]
        results['img'] = images
        results['ori_shape'] = results['img_shape'] = (height, width)
        results['img_aug_mat'] = np.tile(np.eye(4), (len(images), 1, 1))
        return results

    def _of_one_size(
        self, images: Sequence[Image.Image], paths: Sequence[str], size: Tuple[int, int]
    ) -> List[Image.Image]:
        """Images of a width and height, padded if that is asked for."""
        padded = []
        for image, path in zip(images, paths):
            if image.size != size:
                if self.pad_to is None:
                    raise ValueError(
                        f'image {path} has width and height {image.size}, '
                        f'the first camera has {size}; all must agree, or '
                        'LoadMultiViewImages.pad_to say what to pad to'
                    )
                if image.width > size[0] or image.height > size[1]:
                    raise ValueError(
                        f'image {path} has height and width '
                        f'{image.size[::-1]}, more than '
                        f'LoadMultiViewImages.pad_to={tuple(self.pad_to)}'
                    )
                canvas = Image.new('RGB', size)
                canvas.paste(image)
                image = canvas
            padded.append(image)
        return padded


@TRANSFORMS.register_module()
class AugmentMultiViewImages(BaseTransform):
    """Resizes, crops, flips and rotates each image with draws of its own.

    The recipe of BEVDet: scale to the input width times a random factor, crop
    to ``input_size`` with the *lower* edge kept, mirror, rotate about the
    centre. With the default ranges nothing is random: that is test time.
    Adjacent frames of a camera share its draw.

    Writes ``img_aug_mat`` (N, 4, 4), which takes (u, v, depth, 1) of the raw
    image to the network input: linear part in ``[:2, :2]``, translation in
    ``[:2, 3]``. BEVDet's matrices scale by the drawn factor; ours by the
    ratio of the integer sizes, which is what happened to the image.

    Args:
        input_size: Height and width of the network input in pixels.
        resize: Range added to the factor ``input width / raw width``.
        crop_height: Range of the part cut off at the bottom, in [0, 1).
        flip_prob: Probability to mirror an image.
        rotate: Range of angles in degrees, counter-clockwise.
        resize_all: Whether the whole image is resized before it is cropped,
            as published, instead of the kept part alone. That takes half as
            long again; a value in a thousand differs by one, few by two.
    """

    def __init__(
        self,
        input_size: Tuple[int, int],
        resize: Tuple[float, float] = (0.0, 0.0),
        crop_height: Tuple[float, float] = (0.0, 0.0),
        flip_prob: float = 0.0,
        rotate: Tuple[float, float] = (0.0, 0.0),
        resize_all: bool = False,
    ) -> None:
        if len(input_size) != 2 or min(input_size) < 1:
            raise ValueError(f'input_size takes (height, width) in pixels, got {input_size}')
        self.input_size = tuple(input_size)
        self.resize = resize
        self.crop_height = crop_height
        self.flip_prob = flip_prob
        self.rotate = rotate
        self.resize_all = resize_all

    def transform(self, results: dict) -> dict:
        draws = [self._draw(results['ori_shape']) for _ in results['img']]
        _each_frame(
            results,
            lambda images: [
                augment_image(image, *draw, resize_all=self.resize_all)
                for image, draw in zip(images, draws)
            ],
        )
        results['img_aug_mat'] = np.stack(
            [image_augmentation_matrix(results['ori_shape'], *draw) for draw in draws]
        )
        results['img_shape'] = self.input_size
        return results

    def _draw(self, ori_shape: Tuple[int, int]) -> tuple:
        """Random ``size, crop, flip, angle`` of one image."""
        (raw_height, raw_width), (height, width) = ori_shape, self.input_size
        factor = width / raw_width + np.random.uniform(*self.resize)
        # the product of a quotient may fall just below the integer it means
        size = (int(raw_width * factor + 1e-6), int(raw_height * factor + 1e-6))
        kept = 1 - np.random.uniform(*self.crop_height)
        top = int(kept * size[1]) - height
        left = int(np.random.uniform(0, max(0, size[0] - width)))
        flip = np.random.rand() < self.flip_prob
        angle = np.random.uniform(*self.rotate)
        return size, (left, top, left + width, top + height), flip, angle


@TRANSFORMS.register_module()
class DistortMultiViewImages(BaseTransform):
    """Changes the colours of each image with draws of its own.

    Draws and result are those of mmdet's ``PhotoMetricDistortion``, as
    BEVFormer applies it, in a fraction of its time. Values are rounded and
    clipped to [0, 255] afterwards; published code is not.

    Args:
        **kwargs: Of mmdet's ``PhotoMetricDistortion``.
    """

    def __init__(self, **kwargs) -> None:
        # mmdet takes seconds to import
        from mmdet.datasets.transforms import PhotoMetricDistortion

        self.distort = PhotoMetricDistortion(**kwargs)

    def transform(self, results: dict) -> dict:
        _each_frame(results, lambda images: [self._one(i) for i in images])
        return results

    def _one(self, image: Image.Image) -> Image.Image:
        return Image.fromarray(distort_colours(np.asarray(image), *self.distort._random_flags()))


def distort_colours(
    image: np.ndarray,
    contrast_last: int,
    brighten: int,
    contrast: int,
    saturate: int,
    turn: int,
    swap: int,
    delta: float,
    alpha: float,
    saturation: float,
    hue: float,
    order: Sequence[int],
) -> np.ndarray:
    """What mmdet's ``PhotoMetricDistortion`` does to an image.

    Changes of single values are one look-up. Hue and saturation go through
    OpenCV's HSV, in strips that stay in the cache; they are left out where
    they are not drawn and no value is negative (mmdet's way to HSV and back
    changes negative ones).

    Args:
        image: RGB, shape (H, W, 3), uint8.
        contrast_last: 0 for contrast after hue and saturation, 1 before
            (mmdet calls it mode).
        brighten, contrast, saturate, turn, swap: Which changes are made.
        delta: Added to all values.
        alpha: Factor of contrast.
        saturation: Factor of saturation.
        hue: Degrees added to the hue.
        order: Order of the channels blue, green, red.

    Returns:
        RGB, shape (H, W, 3), uint8.
    """
    alpha = alpha if contrast else 1.0
    before, after = (alpha, 1.0) if contrast_last else (1.0, alpha)
    values = np.arange(256, dtype=np.float32)
    values = (values + np.float32(delta if brighten else 0)) * np.float32(before)
    if not (saturate or turn) and values[0] >= 0:
        values = np.clip(np.rint(values * np.float32(after)), 0, 255)
        image = cv2.LUT(image, values.astype(np.uint8))
    else:
        image = np.concatenate(
            [
                _turn_hues(
                    cv2.LUT(image[row : row + _STRIP], values),
                    hue if turn else 0.0,
                    saturation if saturate else 1.0,
                    after,
                )
                for row in range(0, len(image), _STRIP)
            ]
        )
    if swap:
        # the channels of `order` are blue first, ours red first
        planes = cv2.split(image)
        image = cv2.merge([planes[2 - channel] for channel in order[::-1]])
    return image


def _turn_hues(image: np.ndarray, hue: float, saturation: float, contrast: float) -> np.ndarray:
    """An RGB image, float32, with other hues (degrees), saturation and, after
    them, contrast; as bytes."""
    image = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    if saturation != 1:
        image[..., 1] *= np.float32(saturation)
        if saturation > 1:
            np.minimum(image[..., 1], 1, out=image[..., 1])
    if hue:
        # OpenCV takes hues from 0 on, whole turns too many are no matter
        image[..., 0] += np.float32(hue % 360)
    image = cv2.cvtColor(image, cv2.COLOR_HSV2RGB)
    # rounds and clips above; below it would take the absolute value
    return cv2.convertScaleAbs(np.maximum(image, 0), alpha=contrast)


@TRANSFORMS.register_module()
class ResizeMultiViewImages(BaseTransform):
    """Scales all images by one factor, bilinearly, as BEVFormer does.

    Writes the scale into ``img_aug_mat``. The samples are those of OpenCV:
    four neighbours, whatever the scale. Values are rounded to [0, 255];
    published code keeps fractions.

    Args:
        scale: Size after over size before.

    Raises:
        ValueError: If ``scale`` is not above 0.

    ``RandomScaleImageMultiViewImage`` of CVPR2023-Occ @4781df9.
    """

    def __init__(self, scale: float) -> None:
        if scale <= 0:
            raise ValueError(f'scale takes a number above 0, got {scale}')
        self.scale = scale

    def transform(self, results: dict) -> dict:
        height, width = results['img_shape']
        # the product may fall just below the integer that it means
        size = tuple(int(n * self.scale + 1e-6) for n in (width, height))
        _each_frame(
            results,
            lambda images: [Image.fromarray(imresize(np.asarray(image), size)) for image in images],
        )
        scaling = np.diag([self.scale, self.scale, 1, 1])
        results['img_aug_mat'] = scaling @ results['img_aug_mat']
        results['img_shape'] = size[::-1]
        return results


def _each_frame(results: dict, change: Callable) -> None:
    """Applies ``change`` to ``img`` and to adjacent frames that exist."""
    current = results['img']
    results['img'] = change(current)
    if 'adjacent_img' in results:
        results['adjacent_img'] = [
            results['img'] if images is current else change(images)
            for images in results['adjacent_img']
        ]


def augment_image(
    image: Image.Image,
    size: Tuple[int, int],
    crop: Crop,
    flip: bool,
    angle: float,
    resize_all: bool = False,
) -> Image.Image:
    """The image resized, cropped, mirrored and rotated, in this order.

    Args:
        image: Raw image.
        size: Width and height after resizing (bicubic), pixels.
        crop: What is kept of the resized image; parts outside of it are
            black.
        flip: Whether to mirror left and right.
        angle: Degrees, counter-clockwise about the centre (nearest pixel).
        resize_all: See :class:`AugmentMultiViewImages`.

    Returns:
        Image of the size of the crop.
    """
    if resize_all:
        image = image.resize(size, Image.BICUBIC).crop(crop)
    else:
        image = resize_part(image, size, crop)
    if flip:
        image = image.transpose(Image.FLIP_LEFT_RIGHT)
    return image.rotate(angle) if angle else image


def resize_part(image: Image.Image, size: Tuple[int, int], crop: Crop) -> Image.Image:
    """The image resized and cropped; only what is kept is computed.

    Args:
        image, size, crop: As in :func:`augment_image`.
    """
    left, upper, right, lower = crop
    # what of the crop lies in the resized image
    x0, y0 = max(left, 0), max(upper, 0)
    x1, y1 = min(right, size[0]), min(lower, size[1])
    whole = Image.new(image.mode, (right - left, lower - upper))
    if x0 >= x1 or y0 >= y1:
        return whole
    x_scale, y_scale = image.width / size[0], image.height / size[1]
    box = (
        x0 * x_scale,
        y0 * y_scale,
        min(x1 * x_scale, image.width),
        min(y1 * y_scale, image.height),
    )
    part = image.resize((x1 - x0, y1 - y0), Image.BICUBIC, box=box)
    if part.size == whole.size:
        return part
    whole.paste(part, (x0 - left, y0 - upper))
    return whole


def image_augmentation_matrix(
    ori_shape: Tuple[int, int], size: Tuple[int, int], crop: Crop, flip: bool, angle: float
) -> np.ndarray:
    """What :func:`augment_image` does to pixel coordinates.

    Args:
        ori_shape: Height and width of the raw image in pixels.
        size, crop, flip, angle: As in :func:`augment_image`.

    Returns:
        Raw pixel (u, v, depth, 1) to augmented pixel, shape (4, 4).
    """
    width, height = crop[2] - crop[0], crop[3] - crop[1]
    resize_and_crop = np.eye(4)
    resize_and_crop[0, 0] = size[0] / ori_shape[1]
    resize_and_crop[1, 1] = size[1] / ori_shape[0]
    resize_and_crop[:2, 3] = -crop[0], -crop[1]
    mirror = np.eye(4)
    if flip:
        mirror[0, 0], mirror[0, 3] = -1, width
    # the image's v axis points down, hence the sign of the sine
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    rotation = np.eye(4)
    rotation[:2, :2] = [[cosine, sine], [-sine, cosine]]
    centre = np.array([width, height]) / 2
    rotation[:2, 3] = centre - rotation[:2, :2] @ centre
    return rotation @ mirror @ resize_and_crop
