"""Augmentation of the ego frame (BDA): points and labels move together."""

from typing import Dict, Sequence, Tuple

import numpy as np
from mmcv.transforms import BaseTransform

from radocc_plugin.label_space import UNLABELLED, label_space_of
from radocc_plugin.registry import TRANSFORMS


@TRANSFORMS.register_module()
class AugmentBEV(BaseTransform):
    """Turns, scales and mirrors ``points``, ``gt_occ`` and ``bda_mat``.

    ``bda_mat`` (4, 4) takes the key ego to the augmented ego frame. Cameras
    stay calibrated to the key ego frame; whoever relates them to points or
    volumes goes through ``bda_mat``. Put it after the loading transforms.

    Flipped labels are exact. Turned or scaled ones are looked up at the
    centres of the new voxels (:func:`move_labels`): voxels that come from
    outside of the volume get the label ``UNLABELLED`` (255) and are in no
    mask, so a loss over all voxels must ignore that label.

    Args:
        flip_x_prob: Probability of x -> -x (front and back).
        flip_y_prob: Probability of y -> -y (left and right).
        rotate: Range of angles in degrees, counter-clockwise about z.
        scale: Range of factors.
        turn_labels: Whether labels follow rotation and scale, as in FB-OCC.
            Published BEVDet code only flips them, which is wrong for any
            rotation; its configs have none.

    Raises:
        ValueError: If a range is malformed, or labels are to be mirrored
            whose range is not symmetric.
    """

    def __init__(
        self,
        flip_x_prob: float = 0.0,
        flip_y_prob: float = 0.0,
        rotate: Tuple[float, float] = (0.0, 0.0),
        scale: Tuple[float, float] = (1.0, 1.0),
        turn_labels: bool = True,
    ) -> None:
        for name, limits in dict(rotate=rotate, scale=scale).items():
            if len(limits) != 2 or limits[0] > limits[1]:
                raise ValueError(f'{name} takes a range (low, high), got {limits}')
        if scale[0] <= 0:
            raise ValueError(f'scale takes positive factors, got {scale}')
        self.flip_prob = np.array([flip_x_prob, flip_y_prob])
        self.rotate = rotate
        self.scale = scale
        self.turn_labels = turn_labels

    def transform(self, results: dict) -> dict:
        flips = np.random.rand(2) < self.flip_prob
        # a fixed value draws nothing: flips alone keep their random stream
        angle, scale = (
            low if low == high else np.random.uniform(low, high)
            for low, high in (self.rotate, self.scale)
        )
        bda_mat = bda_matrix(angle, scale, *flips)
        results['bda_mat'] = bda_mat @ results['bda_mat']
        if 'points' in results:
            results['points'][:, :3] = results['points'][:, :3] @ bda_mat[:3, :3].T
        if 'gt_occ' in results:
            extent = label_space_of(results, 'AugmentBEV').point_cloud_range
            if self.turn_labels and (angle, scale) != (0, 1):
                results['gt_occ'] = move_labels(results['gt_occ'], bda_mat, extent)
            else:
                check_symmetric(extent, self.flip_prob)
                results['gt_occ'] = flip_labels(results['gt_occ'], *flips)
        return results


def bda_matrix(angle: float, scale: float, flip_x: bool, flip_y: bool) -> np.ndarray:
    """Key ego to augmented ego: rotation, then scale, then flips; (4, 4).

    Args:
        angle: Degrees, counter-clockwise about z.
        scale: Factor of all three axes.
        flip_x, flip_y: Whether to negate x or y.

    BEVDet dev2.1 @f71858d; FB-BEV @6e25469 has the same without scale.
    """
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    matrix = np.diag([scale, scale, scale, 1.0])
    matrix[:2, :2] = scale * np.array([[cosine, -sine], [sine, cosine]])
    return np.diag([-1.0 if flip_x else 1.0, -1.0 if flip_y else 1.0, 1.0, 1.0]) @ matrix


def flip_labels(
    volumes: Dict[str, np.ndarray], flip_x: bool, flip_y: bool
) -> Dict[str, np.ndarray]:
    """Mirrored volumes (X, Y, Z); the grid is symmetric in x and y."""
    axes = tuple(np.flatnonzero([flip_x, flip_y]))
    return {name: np.flip(volume, axes) for name, volume in volumes.items()}


def check_symmetric(point_cloud_range: Sequence[float], flip_prob: Sequence[float]) -> None:
    """Raises a ValueError if a flip would move labels off their grid."""
    for axis, probability in enumerate(flip_prob):
        low, high = point_cloud_range[axis], point_cloud_range[axis + 3]
        if probability and not np.isclose(low, -high):
            name = 'flip_x_prob' if axis == 0 else 'flip_y_prob'
            raise ValueError(
                f'{name} of AugmentBEV takes 0 where the labels reach from '
                f'{low:g} to {high:g} m on that axis, got {probability:g}'
            )


def move_labels(
    volumes: Dict[str, np.ndarray], bda_mat: np.ndarray, point_cloud_range: Sequence[float]
) -> Dict[str, np.ndarray]:
    """Volumes looked up after a BEV augmentation.

    Each voxel of the result takes what the voxel holds that its centre came
    from: FB-OCC's nearest rotation, for any augmentation.

    Args:
        volumes: ``semantics`` and bool masks, shape (X, Y, Z) each; any
            resolution.
        bda_mat: Key ego to augmented ego, of :func:`bda_matrix`, (4, 4).
        point_cloud_range: Range of the volumes, metres.

    Returns:
        Volumes of the same shapes. Where the centre came from outside of the
        range, labels are ``UNLABELLED`` and masks False.
    """
    shape = next(iter(volumes.values())).shape
    low, high = np.reshape(point_cloud_range, (2, 3))
    size = (high - low) / shape
    centres = [low[axis] + (np.arange(shape[axis]) + 0.5) * size[axis] for axis in range(3)]
    # z is only scaled, so the look-up splits into a map and a column
    x, y = np.meshgrid(*centres[:2], indexing='ij')
    inverse = np.linalg.inv(bda_mat)
    old = (
        inverse[0, 0] * x + inverse[0, 1] * y,
        inverse[1, 0] * x + inverse[1, 1] * y,
        inverse[2, 2] * centres[2],
    )
    cells = [np.floor((o - low[a]) / size[a]).astype(int) for a, o in enumerate(old)]
    inside = [(c >= 0) & (c < shape[a]) for a, c in enumerate(cells)]
    x, y, z = (np.where(i, c, 0) for i, c in zip(inside, cells))
    known = (inside[0] & inside[1])[..., None] & inside[2]
    return {
        name: np.where(
            known,
            volume[x[..., None], y[..., None], z],
            np.array(False if volume.dtype == bool else UNLABELLED, volume.dtype),
        )
        for name, volume in volumes.items()
    }


def check_before_bda(results: dict, transform: BaseTransform) -> None:
    """Raises if ``transform`` loads ego data after the frame was augmented."""
    if not np.array_equal(results['bda_mat'], np.eye(4)):
        raise ValueError(
            f'{type(transform).__name__} loads data of the key '
            'ego frame; put it before AugmentBEV in the pipeline'
        )
