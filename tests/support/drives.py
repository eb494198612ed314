"""Made-up drives, as streams and as queues, and a model small enough."""

import numpy as np
import torch

from radocc_plugin.datasets.poses import can_bus_vector, pose_matrix
from radocc_plugin.structures import OccData
from tests.support.models import build_model, make_sample

TINY = 'projects/BEVFormerOcc/configs/bevformer-occ_tiny_1xb1-3e_synthetic.py'
RADOCC = 'configs/radocc/radocc_bevformer-occ_tiny_1xb1-3e_synthetic.py'
SIZE = (48, 80)
GRID = 20  # BEV cells of a side; 4 m
HEAD = 'pts_bbox_head.'
SMALL = {
    f'{HEAD}bev_h': GRID,
    f'{HEAD}bev_w': GRID,
    f'{HEAD}transformer.upsample': 1,
    f'{HEAD}positional_encoding.row_num_embed': GRID,
    f'{HEAD}positional_encoding.col_num_embed': GRID,
}


def small_model(seed: int = 0, **changes):
    """The tiny model on a grid of 20 x 20 x 4, with random attention."""
    return build_model(TINY, seed, **{**SMALL, **changes})


class Drive:
    """Images and poses of a scene's keyframes; the ego turns and speeds up.

    Args:
        scene: Scene token; also seeds everything.
        bda_mat: Ego to augmented ego of all frames.
    """

    def __init__(self, scene: int, frames: int = 4, bda_mat=None) -> None:
        generator = np.random.default_rng(scene)
        self.scene = scene
        yaws = np.cumsum(generator.uniform(-0.2, 0.2, frames)) + scene
        places = np.cumsum(generator.uniform(0, 5, (frames, 2)), 0) + 400
        self.can_bus, self.ego2global = [], []
        for yaw, (x, y) in zip(yaws, places):
            rotation = [np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
            self.can_bus.append(can_bus_vector(rotation, [x, y, 0], generator.standard_normal(9)))
            self.ego2global.append(pose_matrix(rotation, [x, y, 0]))
        noise = torch.Generator().manual_seed(scene)
        self.images = torch.randn(frames, 6, 3, *SIZE, generator=noise)
        self.bda_mat = np.eye(4) if bda_mat is None else bda_mat

    def sample(self, time: int):
        """Data sample of a keyframe."""
        sample = make_sample(*SIZE, seed=self.scene)
        truth = sample.gt_occ
        sample.gt_occ = OccData(
            semantics=truth.semantics[::10, ::10, ::4],
            mask_camera=truth.mask_camera[::10, ::10, ::4],
        )
        sample.set_metainfo(
            dict(
                scene_token=str(self.scene),
                token=f'{self.scene}-{time}',
                prev=f'{self.scene}-{time - 1}' if time else '',
                timestamp=100.0 + 0.5 * time,
                can_bus=self.can_bus[time],
                ego2global=self.ego2global[time],
                bda_mat=self.bda_mat,
            )
        )
        return sample


def stream_batch(*moments):
    """A batch of keyframes, each a drive and a time."""
    imgs = torch.stack([drive.images[time] for drive, time in moments])
    return dict(imgs=imgs), [drive.sample(time) for drive, time in moments]


def queue_batch(*moments, past: int = 2):
    """The same with past keyframes, as the dataset packs them."""
    inputs, samples = stream_batch(*moments)
    adjacent = []
    for (drive, time), sample in zip(moments, samples):
        times = [max(time - n, -1) for n in range(1, past + 1)]
        exists = np.array([t >= 0 for t in times])
        times = [t if t >= 0 else time for t in times]
        global2ego = np.linalg.inv(drive.ego2global[time])
        sample.set_metainfo(
            dict(
                adjacent_exists=exists,
                adjacent_can_bus=np.stack([drive.can_bus[t] for t in times]),
                adjacent_ego2global=np.stack([drive.ego2global[t] for t in times]),
                adjacent_cam2ego=np.stack(
                    [global2ego @ drive.ego2global[t] @ sample.cam2ego for t in times]
                ),
            )
        )
        adjacent.append(drive.images[times])
    inputs['adjacent_imgs'] = torch.stack(adjacent)
    return inputs, samples
