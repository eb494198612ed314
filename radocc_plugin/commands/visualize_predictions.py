"""Pictures of predictions: sheets, movies, recordings, comparisons.

A sheet a frame, from a dump or from a checkpoint:

    python tools/visualize.py predictions --dump work_dirs/predictions \\
        --data-root data/nuscenes --frames 0 10 --out work_dirs/pictures
    python tools/visualize.py predictions --model RadOcc CONFIG CHECKPOINT \\
        --frames 0 10 --out work_dirs/pictures

A model that carries its past along is run from the start of the scene on.

The same of a scene, as a movie (.gif, .mp4) or for the rerun viewer (.rrd):

    python tools/visualize.py predictions --dump work_dirs/predictions \\
        --data-root data/nuscenes --scene scene-0003 --out scene-0003.mp4

Several models are compared on two pages a frame, occupancy_<i>.png (cameras,
ground truth and every model's volume) and rendering_<i>.png (depth and
semantics that each volume renders to). Frames come from the test set of the
first model's config, so name a teacher first where there is one: its pipeline
loads the LiDAR.
"""

import argparse
import copy
import os
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import Optional


import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from rich.progress import track

from radocc_plugin.checkpoints import DISTILL, load_weights
from radocc_plugin.config_file import load_config
from radocc_plugin.datasets import BENCHMARKS
from radocc_plugin.distillation.calibration import class_frequency_logits
from radocc_plugin.engine.streaming import is_streaming, with_history
from radocc_plugin.evaluation import confusion_matrix, scores
from radocc_plugin.evaluation.sample_fields import MASKS
from radocc_plugin.evaluation.sample_fields import mask_of
from radocc_plugin.geometry import Cameras
from radocc_plugin.label_space import UNLABELLED, LabelSpace
from radocc_plugin.registry import DATASETS, MODELS
from radocc_plugin.rendering import VolumeRenderer
from radocc_plugin.rendering.backends import get_backend
from radocc_plugin.visualization import (
    draw_sheet,
    frame_page,
    read_images,
    rendered_maps,
    rendering_page,
    sample_of_frame,
    save_picture,
    scene_indices,
    write_movie,
)
from radocc_plugin.visualization.images import depth_reach
from radocc_plugin.visualization.movies import SUFFIXES
from radocc_plugin.visualization.recording import import_rerun, write_recording
from radocc_plugin.visualization.sheet import default_renderer


MOVIES = (*SUFFIXES, '.rrd')


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        '--model',
        nargs=3,
        action='append',
        metavar=('TITLE', 'CONFIG', 'CHECKPOINT'),
        help='give it several times to compare models',
    )
    source.add_argument('--dump', help='folder of predictions, of tools/test.py --dump')
    add('--data-root', help='data of the dump')
    add('--benchmark', choices=BENCHMARKS, default='occ3d-nuscenes', help='labels of the dump')
    add('--ann-file', default='radocc_infos_val.pkl', help='infos of the dump')
    add(
        '--range',
        nargs=6,
        type=float,
        metavar=('X0', 'Y0', 'Z0', 'X1', 'Y1', 'Z1'),
        help='point_cloud_range of the dataset of the dump, metres',
    )
    add('--frames', nargs='+', type=int, help='indices; default 0')
    add('--scene', help='all frames of a scene, by its name or token')
    add(
        '--out',
        type=Path,
        required=True,
        help='folder of pictures, or one file: .gif, .mp4 or .rrd',
    )
    add('--format', choices=('png', 'jpg'), default='png', help='of sheets')
    add(
        '--mask',
        choices=MASKS,
        help='voxels that are judged; the others are pale (default: camera '
        'where the labels have that mask)',
    )
    add(
        '--unobserved',
        choices=('dim', 'hide'),
        default='dim',
        help='draws what is not judged pale, or not at all',
    )
    add('--fps', type=float, default=2.0, help='frames a second of a movie')
    add('--width', type=int, default=1280, help='pixels of a movie')
    add(
        '--render-size',
        nargs=2,
        type=int,
        default=(90, 160),
        help='height and width of rendered maps',
    )
    add('--workers', type=int, default=os.cpu_count(), help='processes that draw sheets')
    add('--device', default='cpu', help='where models run')
    add(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the first config, e.g. its data root',
    )
    args = parser.parse_args(argv)
    if args.dump and not args.data_root:
        parser.error('--dump takes --data-root')
    if args.frames and args.scene:
        parser.error('give one of --frames and --scene')
    args.is_file = args.out.suffix in MOVIES
    if args.is_file and args.model and len(args.model) > 1:
        parser.error(f'--out {args.out} takes one --model')
    if args.out.suffix and not args.is_file and not args.out.is_dir():
        parser.error(f'--out takes a folder, or a file of {", ".join(MOVIES)}, got {args.out}')
    return args


def load_model(config: Config, checkpoint: str, device: str):
    """A model for inference; of a distiller only the student."""
    model = MODELS.build(config.model)
    load_weights(model, checkpoint, optional=DISTILL)
    model = getattr(model, 'student', model)
    return model.to(device).eval()


def frame_indices(args: argparse.Namespace, dataset) -> list:
    """The frames of the command line.

    Raises:
        ValueError: If a frame is beyond the last, or the scene unknown.
    """
    if args.scene:
        return scene_indices(dataset, args.scene)
    frames = args.frames or [0]
    for frame in frames:
        if not 0 <= frame < len(dataset):
            raise ValueError(
                f'--frames takes indices below {len(dataset)}, '
                f'the number of test frames, got {frame}'
            )
    return frames


def samples_of_dump(args: argparse.Namespace):
    """How many frames, and their samples one after the other."""
    kind = BENCHMARKS[args.benchmark]
    dataset = kind(
        data_root=args.data_root,
        ann_file=args.ann_file,
        point_cloud_range=args.range,
        pipeline=[dict(type=kind.LABEL_LOADER)],
        test_mode=True,
    )
    if 'occ_path' not in dataset.get_data_info(0):
        dataset.pipeline.transforms.clear()  # the test split has no labels
    frames = frame_indices(args, dataset)
    return len(frames), (sample_of_frame(dataset[frame], args.dump) for frame in frames)


def samples_of_model(args: argparse.Namespace):
    """The same of a model, which predicts in this order."""
    ((_, config_file, checkpoint),) = args.model
    config = load_config(config_file, options=args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmengine'))
    model = load_model(config, checkpoint, args.device)
    dataset = DATASETS.build(config.test_dataloader.dataset)
    frames = frame_indices(args, dataset)

    def predictions():
        order = ((frame, True) for frame in frames)
        if is_streaming(model):
            order = with_history(dataset, frames)
        for frame, wanted in order:
            with torch.no_grad():
                (sample,) = model.test_step(pseudo_collate([dataset[frame]]))
            if wanted:
                yield sample.cpu()

    return len(frames), predictions()


def source_of(args: argparse.Namespace):
    """How many frames the command line names, and their samples."""
    return (samples_of_dump if args.dump else samples_of_model)(args)


def draw(sample, args: argparse.Namespace):
    """The sheet of a sample, with where its picture belongs."""
    options = {}
    if args.model:
        options['prediction'] = args.model[0][0]
    sheet = draw_sheet(
        sample,
        renderer=default_renderer(sample.label_space.point_cloud_range, tuple(args.render_size)),
        mask=args.mask,
        **options,
    )
    return f'{sample.scene_name}/{sample.token}.{args.format}', sheet


def record(args: argparse.Namespace) -> None:
    """A recording of one source."""
    import_rerun()  # before a model is built for nothing
    total, samples = source_of(args)
    write_recording(args.out, track(samples, 'Recording', total=total), mask=args.mask)


def draw_sheets(args: argparse.Namespace) -> None:
    """Sheets of one source: pictures or a movie."""
    # Compiled once, before the processes start.
    get_backend('auto', torch.device('cpu'))
    with Pool(args.workers, torch.set_num_threads, (1,)) as pool:
        total, samples = source_of(args)
        sheets = track(pool.imap(partial(draw, args=args), samples), 'Drawing', total=total)
        if args.is_file:
            write_movie(args.out, (sheet for _, sheet in sheets), fps=args.fps, width=args.width)
            return
        for name, sheet in sheets:
            save_picture(args.out / name, sheet)


@torch.no_grad()
def logits_of(model, batch: dict) -> torch.Tensor:
    """Occupancy logits (X, Y, Z, C) of a one-sample batch, on the CPU."""
    data = model.data_preprocessor(copy.deepcopy(batch), False)
    return model(**data, mode='tensor')[0].cpu()


def without_class_weights(logits: torch.Tensor, model, title: str) -> torch.Tensor:
    """What the distiller renders: without the weights of its cross entropy
    a student does not see fog in front of every lens."""
    weight = (getattr(model, 'occ_tap', None) or {}).get('class_weight')
    if weight is None:
        return logits
    return class_frequency_logits(logits, weight, -1, title)


def render(renderer: VolumeRenderer, volume: torch.Tensor, geometry, num_classes: int) -> tuple:
    """Depth and class maps of logits (X, Y, Z, C) or labels (X, Y, Z)."""
    if volume.dim() == 4:
        return rendered_maps(renderer(volume[None], geometry))
    return rendered_maps(
        renderer.render_labels(
            volume.masked_fill(volume == UNLABELLED, num_classes - 1)[None], geometry, num_classes
        )
    )


def frame_score(
    labels: torch.Tensor, prediction: torch.Tensor, mask: Optional[torch.Tensor], space: LabelSpace
) -> float:
    counts = confusion_matrix(labels, prediction, mask, num_classes=space.num_classes)
    return scores(counts, space.classes)['mIoU']


@torch.no_grad()
def compare(args: argparse.Namespace) -> None:
    """Pages of several models, whose logits are rendered."""
    configs = [
        load_config(config, options=None if number else args.cfg_options)
        for number, (_, config, _) in enumerate(args.model)
    ]
    init_default_scope(configs[0].get('default_scope', 'mmengine'))
    models = {
        title: load_model(config, checkpoint, args.device)
        for config, (title, _, checkpoint) in zip(configs, args.model)
    }
    dataset = DATASETS.build(configs[0].test_dataloader.dataset)
    space = dataset.label_space
    counted = space.mask(args.mask, '--mask')
    renderer = default_renderer(space.point_cloud_range, tuple(args.render_size))
    frames = frame_indices(args, dataset)
    streams = [m for m in models.values() if is_streaming(m)]
    order = ((frame, True) for frame in frames)
    if streams:
        order = with_history(dataset, frames)
    for frame, wanted in track(list(order), 'Drawing'):
        batch = pseudo_collate([dataset[frame]])
        if not wanted:
            for model in streams:
                logits_of(model, batch)
            continue
        sample = batch['data_samples'][0]
        truth = sample.gt_occ.semantics
        mask = mask_of(sample, counted, 'tools/visualize.py')
        volumes = {'Ground truth': truth}
        volumes.update((title, logits_of(model, batch)) for title, model in models.items())
        labels = {
            title: volume.argmax(-1) if volume.dim() == 4 else volume
            for title, volume in volumes.items()
        }
        cameras = Cameras.from_data_samples([sample])
        geometry = renderer.trace_all(cameras, truth.shape)
        volumes.update(
            (title, without_class_weights(volumes[title], model, title))
            for title, model in models.items()
        )
        renders = {
            title: render(renderer, volume, geometry, space.num_classes)
            for title, volume in volumes.items()
        }
        images = read_images(sample.img_path, backend_args=sample.get('backend_args'))
        name = f'{sample.metainfo["scene_name"]}, test frame {frame}'
        occupancy = frame_page(
            images,
            {title: v.numpy() for title, v in labels.items()},
            space,
            cameras=sample.cam_names,
            title=name,
            miou={title: frame_score(truth, labels[title], mask, space) for title in models},
            visible=None if mask is None else mask.numpy(),
            unobserved=args.unobserved,
        )
        save_picture(args.out / f'occupancy_{frame}.png', occupancy)
        rendering = rendering_page(
            images,
            {title: depth for title, (depth, _) in renders.items()},
            {title: classes for title, (_, classes) in renders.items()},
            space,
            max_depth=depth_reach(space),
            cameras=sample.cam_names,
            title=name,
        )
        save_picture(args.out / f'rendering_{frame}.png', rendering)


def main(argv=None) -> None:
    args = parse_args(argv)
    if args.model and len(args.model) > 1:
        compare(args)
    elif args.out.suffix == '.rrd':
        record(args)
    else:
        draw_sheets(args)
    print(f'Pictures: {args.out}')
