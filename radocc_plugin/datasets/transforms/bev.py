"""Augmentation of the ego frame (BDA): points and labels move together."""
import numpy as np
from mmcv.transforms import BaseTransform

from radocc_plugin.registry import TRANSFORMS


@TRANSFORMS.register_module()
class AugmentBEV(BaseTransform):
    """Mirrors the ego frame: ``points``, ``gt_occ`` and ``bda_mat``.

    ``bda_mat`` (4, 4) takes the key ego to the augmented ego frame. Cameras
    stay calibrated to the key ego frame; whoever relates them to points or
    volumes goes through ``bda_mat``. Put it after the loading transforms.

    Args:
        flip_x_prob: Probability of x -> -x (front and back).
        flip_y_prob: Probability of y -> -y (left and right).
    """

    def __init__(self,
                 flip_x_prob: float = 0.,
                 flip_y_prob: float = 0.) -> None:
        self.flip_prob = np.array([flip_x_prob, flip_y_prob])

    def transform(self, results: dict) -> dict:
        flips = np.random.rand(2) < self.flip_prob
        signs = np.where(flips, -1., 1.)
        results['bda_mat'] = np.diag([*signs, 1., 1.]) @ results['bda_mat']
        if 'points' in results:
            results['points'][:, :2] *= signs
        if 'gt_occ' in results:
            # the grid is symmetric in x and y, so a mirrored volume fits it
            axes = tuple(np.flatnonzero(flips))
            results['gt_occ'] = {
                name: np.flip(volume, axes)
                for name, volume in results['gt_occ'].items()
            }
        return results


def check_before_bda(results: dict, transform: BaseTransform) -> None:
    """Raises if ``transform`` loads ego data after the frame was augmented."""
    if not np.array_equal(results['bda_mat'], np.eye(4)):
        raise ValueError(f'{type(transform).__name__} loads data of the key '
                         'ego frame; put it before AugmentBEV in the pipeline')
