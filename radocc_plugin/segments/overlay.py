"""Looking at segments."""

import colorsys

import cv2
import numpy as np


def overlay(image: np.ndarray, labels: np.ndarray, opacity: float = 0.45) -> np.ndarray:
    """An image with its segments in colours and their borders in white.

    Args:
        image: RGB, shape (H, W, 3), uint8.
        labels: Segment ids, shape (h, w), of any size; 0 stays uncoloured.
        opacity: How much the colours cover, 0 to 1.

    Returns:
        RGB, shape (H, W, 3), uint8.
    """
    height, width = image.shape[:2]
    labels = cv2.resize(
        labels.astype(np.int32).astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST
    ).astype(np.int64)
    # steps of the golden ratio keep the hues of neighbouring ids apart
    hues = np.arange(labels.max() + 1) * 0.618034 % 1
    colors = np.array([colorsys.hsv_to_rgb(h, 0.75, 1.0) for h in hues]) * 255
    alpha = np.where(labels > 0, opacity, 0.0)[..., None]
    out = image * (1 - alpha) + colors[labels] * alpha
    border = np.zeros(labels.shape, bool)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    out[border] = 255
    return out.round().astype(np.uint8)
