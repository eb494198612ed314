"""Configs, models and made-up batches for tests of the model families."""

import re
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

from radocc_plugin.datasets.info_converter import convert_nuscenes
from radocc_plugin.occ3d import CLASSES, FREE
from radocc_plugin.registry import MODELS
from radocc_plugin.segments import write_label_map
from radocc_plugin.structures import OccData, OccDataSample
from radocc_plugin.synthetic import generate
from tests.support.golden import key_list

ROOT = Path(__file__).resolve().parents[2]
DRIVEABLE = CLASSES.index('driveable_surface')


def load_config(path: str) -> Config:
    """A config of the repository, by its path from the root."""
    return Config.fromfile(ROOT / path)


def build_model(path: str, seed: int = 0, **changes):
    """The model of a config, with some of its fields replaced."""
    config = load_config(path)
    config.merge_from_dict({f'model.{k}': v for k, v in changes.items()})
    torch.manual_seed(seed)
    return MODELS.build(config.model)


def make_world(root: Path, frames: int) -> Path:
    """A synthetic world of one scene a split, with square segments."""
    generate(
        str(root),
        scenes_train=1,
        scenes_val=1,
        frames=frames,
        image_size=(400, 225),
        workers=1,
        progress=False,
    )
    convert_nuscenes(str(root), 'v1.0-synthetic')
    squares = np.arange(225 * 400).reshape(225, 400) // 20 % 20 + 1
    for image in (root / 'samples').glob('CAM*/*.jpg'):
        path = root / 'segments' / image.relative_to(root)
        path = path.with_suffix('.png')
        path.parent.mkdir(parents=True, exist_ok=True)
        write_label_map(path, squares.astype(np.int32))
    return root


def make_sample(height: int = 96, width: int = 256, seed: int = 0, num_adjacent: int = 0):
    """A sample with six cameras around the ego, random labels and depths.

    Between frames the ego drives two metres ahead and turns a little.
    """
    generator = torch.Generator().manual_seed(seed)
    cam2ego = []
    for yaw in np.deg2rad([55, 0, -55, 110, 180, -110]):
        forward = np.array([np.cos(yaw), np.sin(yaw), 0])
        right = np.array([np.sin(yaw), -np.cos(yaw), 0])
        matrix = np.eye(4)
        matrix[:3, :3] = np.stack([right, [0, 0, -1], forward], axis=1)
        matrix[:3, 3] = forward + [0, 0, 1.5]
        cam2ego.append(matrix)
    cam2ego = np.stack(cam2ego)
    angle = 0.03
    frame2next = np.eye(4)
    frame2next[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    frame2next[0, 3] = -2
    focal = 0.8 * width
    cam2img = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    sample = OccDataSample(
        metainfo=dict(
            cam2img=np.stack([cam2img] * 6),
            cam2ego=cam2ego,
            img_aug_mat=np.stack([np.eye(4)] * 6),
            bda_mat=np.eye(4),
            ori_shape=(height, width),
            img_shape=(height, width),
        )
    )
    if num_adjacent:
        sample.set_metainfo(
            dict(
                adjacent_cam2ego=np.stack(
                    [
                        np.linalg.matrix_power(frame2next, frame + 1) @ cam2ego
                        for frame in range(num_adjacent)
                    ]
                )
            )
        )
    grid = (200, 200, 16)
    sample.gt_occ = OccData(
        semantics=torch.randint(0, 18, grid, generator=generator, dtype=torch.uint8),
        mask_camera=torch.rand(grid, generator=generator) < 0.2,
    )
    returns = torch.rand(6, height, width, generator=generator) < 0.05
    sample.gt_depth = returns * (1 + 50 * torch.rand(6, height, width, generator=generator))
    return sample


def make_batch(batch_size: int = 1, seed: int = 0, size: tuple = (96, 256), num_adjacent: int = 0):
    """``inputs`` (images of ``size``, 5000 points) and ``data_samples``."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([80, 80, 6.4, 255, 0])
    shift = torch.tensor([40, 40, 1.0, 0, 0])
    inputs = dict(
        imgs=torch.randn(batch_size, 6, 3, *size, generator=generator),
        points=[
            torch.rand(5000, 5, generator=generator) * scale - shift for _ in range(batch_size)
        ],
    )
    if num_adjacent:
        inputs['adjacent_imgs'] = torch.randn(
            batch_size, num_adjacent, 6, 3, *size, generator=generator
        )
    return inputs, [
        make_sample(*size, seed=seed + i, num_adjacent=num_adjacent) for i in range(batch_size)
    ]


def train_steps(model, steps: int = 3, **batch):
    """Losses of a few steps on one frame of ground below free space."""
    inputs, samples = make_batch(**batch)
    samples[0].gt_occ.semantics[:] = FREE
    samples[0].gt_occ.semantics[:, :, :3] = DRIVEABLE
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    history = []
    for _ in range(steps):
        losses = model(inputs, samples, mode='loss')
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append({name: float(v.detach()) for name, v in losses.items()})
    return history


def read_key_list(name: str) -> dict:
    """A state dict of zeros with the published keys and shapes."""
    path = key_list(name)
    state = {}
    for line in path.read_text().splitlines():
        if line.startswith('#'):
            continue
        key, shape = re.fullmatch(r'(\S+) \[([\d, ]*)\]', line).groups()
        sizes = [int(size) for size in shape.split(',') if size]
        # one stored number, whatever the shape
        state[key] = torch.zeros(1).expand(sizes) if sizes else torch.zeros([])
    return state
