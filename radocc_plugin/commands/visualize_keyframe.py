"""The real nuScenes keyframe through every stage, with figures and pictures.

    python tools/create_data.py keyframe --data-root KEYFRAME --out DATA
    python tools/generate_segments.py --data-root DATA \\
        --ann-file DATA/radocc_infos_val.pkl --out DATA/segments
    python tools/visualize.py keyframe CONFIG --data-root DATA --out OUT

CONFIG distils a student. The keyframe goes through the dataset, the student's
and the teacher's forward, the renderer and one RadOcc training step. Without
checkpoints the models are random: the stages run, the predictions mean
nothing. The geometry is proved independently of any model: the sweep,
voxelised in the ego frame and rendered into the cameras, is compared with
its points projected by the published LiDAR-to-camera matrices.
"""

import argparse
import json
import time
from contextlib import contextmanager
from pathlib import Path


import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.table import Table

from radocc_plugin.config_file import load_config
from radocc_plugin import occ3d
from radocc_plugin.checkpoints import DISTILL, load_weights
from radocc_plugin.datasets.info_file import load_infos
from radocc_plugin.datasets.transforms.lidar import drop_ego_vehicle
from radocc_plugin.fileio import read_lidar_file, write_atomically
from radocc_plugin.geometry import Cameras, transform_points
from radocc_plugin.registry import DATASETS, MODELS
from radocc_plugin.rendering import VolumeRenderer, sweep_depth_difference
from radocc_plugin.visualization import (
    frame_page,
    read_images,
    rendered_maps,
    rendering_page,
    save_picture,
)


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of a distilled student')
    parser.add_argument('--data-root', required=True)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--student', help='checkpoint of the student')
    parser.add_argument('--teacher', help='checkpoint of the teacher')
    return parser.parse_args(argv)


class Stages:
    """Times named stages."""

    def __init__(self) -> None:
        self.seconds = {}

    @contextmanager
    def __call__(self, name: str):
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def projected_sweep(info: dict, points: torch.Tensor):
    """Pixels (N, P, 2) and depths (N, P) of ego-frame points by the published
    ``lidar2cam`` matrices, past our own camera code."""
    ego2lidar = np.linalg.inv(np.asarray(info['lidar_points']['lidar2ego']))
    homogeneous = np.concatenate((points.numpy().astype(np.float64), np.ones((len(points), 1))), 1)
    in_lidar = homogeneous @ ego2lidar.T
    pixels, depths = [], []
    for camera in occ3d.CAMERAS:
        image = info['images'][camera]
        in_camera = (in_lidar @ np.asarray(image['lidar2cam']).T)[:, :3]
        on_image = in_camera @ np.asarray(image['cam2img'])[:3, :3].T
        pixels.append(on_image[:, :2] / on_image[:, 2:])
        depths.append(in_camera[:, 2])
    return (
        torch.as_tensor(np.stack(pixels), dtype=torch.float32),
        torch.as_tensor(np.stack(depths), dtype=torch.float32),
    )


def sweep_in_ego_frame(sample) -> torch.Tensor:
    """Points (P, 3) of the keyframe's sweep, without the car itself."""
    points = drop_ego_vehicle(read_lidar_file(sample.lidar_path))[:, :3]
    lidar2ego = torch.from_numpy(sample.lidar2ego)
    return transform_points(lidar2ego, torch.from_numpy(points))


def train_step(model, batch: dict) -> dict:
    """One optimiser step of the distiller; returns its losses as numbers."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    data = model.data_preprocessor(batch, True)
    losses = model(**data, mode='loss')
    sum(losses.values()).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
    if not torch.isfinite(norm):
        raise RuntimeError(f'the gradient of the keyframe is {norm}')
    optimizer.step()
    return {name: float(loss.detach()) for name, loss in losses.items()}


def main(argv=None) -> None:
    args = parse_args(argv)
    console = Console()
    # MMEngine reports every initialised parameter otherwise.
    MMLogger.get_instance('keyframe', log_level='WARNING')
    config = load_config(args.config)
    init_default_scope(config.get('default_scope', 'mmengine'))
    dataset = config.train_dataloader.dataset
    # No random augmentation: the training pipeline's loads, the test's images.
    loads = [
        t for t in dataset.pipeline if 'AugmentMulti' not in t.type and 'AugmentBEV' not in t.type
    ]
    augment = [t for t in config.test_dataloader.dataset.pipeline if 'AugmentMulti' in t.type]
    # A teacher's own inputs are made of raw images.
    raw = 1 + sum('TeacherPipeline' in t.type for t in loads)
    dataset = dict(
        dataset,
        data_root=args.data_root,
        ann_file='radocc_infos_val.pkl',
        pipeline=loads[:raw] + augment + loads[raw:],
        test_mode=True,
    )
    model_config = config.model
    model_config.teacher.checkpoint = args.teacher

    stages = Stages()
    with stages('dataset'):
        batch = pseudo_collate([DATASETS.build(dataset)[0]])
    with stages('build student and teacher'):
        model = MODELS.build(model_config)
        if args.student:
            load_weights(model, args.student, optional=DISTILL)
        else:
            model.init_weights()
        device = torch.device('cpu')
        model.teacher.model(device)
    model.eval()
    data = model.data_preprocessor(batch, False)
    with torch.no_grad():
        with stages('student forward'):
            student_logits = model(**data, mode='tensor')
        with stages('teacher forward'):
            teacher_logits = model.teacher.outputs(**data, device=device).occ_logits
    sample = data['data_samples'][0]
    truth = sample.gt_occ.semantics
    cameras = Cameras.from_data_samples([sample])
    space = sample.label_space
    renderer = VolumeRenderer(space.point_cloud_range, (90, 160))
    with torch.no_grad(), stages('render three volumes, 86,400 rays'):
        geometry = renderer.trace_all(cameras, truth.shape)
        renders = {
            'Ground truth': renderer.render_labels(truth[None], geometry, space.num_classes),
            'Teacher': renderer(teacher_logits, geometry),
            'RadOcc student': renderer(student_logits, geometry),
        }
    with stages('one RadOcc training step'):
        losses = train_step(model, batch)

    info = load_infos(str(Path(args.data_root) / 'radocc_infos_val.pkl'))['data_list'][0]
    points = sweep_in_ego_frame(sample)
    with stages('geometry check'):
        difference = sweep_depth_difference(
            points, *projected_sweep(info, points), cameras, space.grid
        ).abs()

    maps = {title: rendered_maps(r) for title, r in renders.items()}
    images = read_images(sample.metainfo['img_path'])
    volumes = {
        'Ground truth (one sweep and boxes)': truth,
        'Teacher': teacher_logits[0].argmax(-1),
        'RadOcc student': student_logits[0].argmax(-1),
    }
    trained = ' and '.join(
        name for name, file in [('teacher', args.teacher), ('student', args.student)] if file
    )
    origin = f'{trained} trained on the synthetic world' if trained else ('random weights')
    title = f'Real nuScenes keyframe; {origin}'
    save_picture(
        args.out / 'occupancy.png',
        frame_page(
            images,
            {t: v.numpy() for t, v in volumes.items()},
            space,
            cameras=sample.cam_names,
            title=title,
        ),
    )
    save_picture(
        args.out / 'rendering.png',
        rendering_page(
            images,
            {t: depth for t, (depth, _) in maps.items()},
            {t: classes for t, (_, classes) in maps.items()},
            space,
            cameras=sample.cam_names,
            title=title,
        ),
    )
    report = dict(
        median_depth_difference=float(difference.median()),
        mean_depth_difference=float(difference.mean()),
        pixels=len(difference),
        losses=losses,
        seconds=stages.seconds,
    )
    write_atomically(args.out / 'report.json', json.dumps(report, indent=2))

    table = Table(title='The real keyframe')
    table.add_column('stage')
    table.add_column('figure', justify='right')
    for name, seconds in stages.seconds.items():
        table.add_row(name, f'{seconds:.2f} s')
    table.add_section()
    for name, value in losses.items():
        table.add_row(name, f'{value:.4f}')
    table.add_section()
    table.add_row(
        f'median |rendered - LiDAR depth|, {len(difference)} pixels',
        f'{report["median_depth_difference"]:.3f} m',
    )
    console.print(table)
    console.print(f'Pictures and report.json: {args.out}', highlight=False)
