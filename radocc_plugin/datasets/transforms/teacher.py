"""A teacher's own inputs beside those of the student."""

from typing import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.dataset import Compose

from radocc_plugin.registry import TRANSFORMS

# Of the student alone.
STUDENT_ONLY = ('adjacent', 'adjacent_img', 'gt_occ', 'points')


@TRANSFORMS.register_module()
class TeacherPipeline(BaseTransform):
    """Makes a teacher's inputs from the images that are already loaded.

    For a teacher that wants other images, points or cameras than the student:
    ``pipeline`` runs on a copy of the sample, and ``teacher`` gets what it
    returns. Put it directly behind ``LoadMultiViewImages``. No file is read
    twice, the student's random numbers stay what they are, and the student's
    BEV augmentation reaches the teacher's sample when both are packed.

    The teacher's matrices are those of the ego frame at LiDAR time, where the
    labels lie, whatever ``key_ego`` of the student's dataset is: published
    students take labels as if they lay in their own key ego frame, and so
    they will take the teacher's volume.

    Args:
        pipeline: Transforms behind the loading of images, the packing
            included.
        cams: Cameras of the teacher in its order.

    Raises:
        ValueError: If images were augmented before, or a camera is missing.
    """

    def __init__(self, pipeline: Sequence, cams: Sequence[str]) -> None:
        self.pipeline = Compose(list(pipeline))
        self.cams = tuple(cams)

    def transform(self, results: dict) -> dict:
        if not np.array_equal(
            results['img_aug_mat'], np.tile(np.eye(4), (len(results['img']), 1, 1))
        ):
            raise ValueError(
                'TeacherPipeline takes raw images; put it directly behind LoadMultiViewImages'
            )
        results.setdefault('lidar_files', {})  # shared with the copy
        state = np.random.get_state()
        packed = self.pipeline(self._view(results))
        np.random.set_state(state)
        results['teacher'] = packed
        return results

    def _view(self, results: dict) -> dict:
        """The sample with the teacher's cameras and ego frame."""
        missing = [c for c in self.cams if c not in results['cam_names']]
        if missing:
            raise ValueError(
                f'TeacherPipeline.cams asks for {missing}, the dataset has {results["cam_names"]}'
            )
        order = [results['cam_names'].index(cam) for cam in self.cams]
        view = {k: v for k, v in results.items() if k not in STUDENT_ONLY}
        for name in ('cam_names', 'img', 'img_path'):
            view[name] = [results[name][i] for i in order]
        for name in ('cam2img', 'cam2ego', 'img_aug_mat'):
            view[name] = results[name][order]
        moved = results['ego2lidar_ego']
        view.update(
            cam2ego=moved @ view['cam2ego'],
            lidar2ego=moved @ results['lidar2ego'],
            ego2global=results['ego2global'] @ np.linalg.inv(moved),
            ego2lidar_ego=np.eye(4),
            lidar_sweeps=[
                dict(sweep, lidar2ego=moved @ sweep['lidar2ego'])
                for sweep in results['lidar_sweeps']
            ],
        )
        return view
