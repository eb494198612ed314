"""Pictures of what several models predict on the same frames.

    python tools/visualize.py --out-dir work_dirs/pictures --frames 0 10 \\
        --model Teacher TEACHER_CONFIG TEACHER_CHECKPOINT \\
        --model Baseline CONFIG CHECKPOINT --model RadOcc CONFIG CHECKPOINT

For each frame two pages: occupancy_<i>.png (cameras, ground truth and every
model's volume) and rendering_<i>.png (depth and semantics that each volume
renders to). Frames come from the test set of the first model's config, so
name a teacher first where there is one: its pipeline loads the LiDAR.
"""
import argparse
import copy
import sys
from pathlib import Path

# The folder above holds `projects`, in a clone and in an installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from rich.progress import track

from radocc_plugin import occ3d
from radocc_plugin.evaluation import confusion_matrix, scores
from radocc_plugin.geometry import Cameras
from radocc_plugin.registry import DATASETS, MODELS
from radocc_plugin.rendering import VolumeRenderer
from radocc_plugin.visualization import (frame_page, read_images,
                                         rendered_maps, rendering_page,
                                         save_picture)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--model',
        nargs=3,
        action='append',
        required=True,
        metavar=('TITLE', 'CONFIG', 'CHECKPOINT'))
    parser.add_argument('--frames', nargs='+', type=int, default=[0])
    parser.add_argument('--out-dir', required=True)
    parser.add_argument(
        '--render-size', nargs=2, type=int, default=(90, 160))
    parser.add_argument('--device', default='cpu')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the first config, e.g. its data root')
    return parser.parse_args()


def load_model(config: Config, checkpoint: str, device: str):
    """A model for inference; of a distiller only the student."""
    model = MODELS.build(config.model)
    load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
    model = getattr(model, 'student', model)
    return model.to(device).eval()


@torch.no_grad()
def predict(model, batch: dict) -> torch.Tensor:
    """Occupancy logits (X, Y, Z, C) of a one-sample batch, on the CPU."""
    data = model.data_preprocessor(copy.deepcopy(batch), False)
    return model(**data, mode='tensor')[0].cpu()


def render(renderer: VolumeRenderer, volume: torch.Tensor, geometry) -> tuple:
    """Depth and class maps of logits (X, Y, Z, C) or labels (X, Y, Z)."""
    if volume.dim() == 4:
        return rendered_maps(renderer(volume[None], geometry))
    return rendered_maps(
        renderer.render_labels(volume[None], geometry, occ3d.NUM_CLASSES))


def frame_score(labels: torch.Tensor, prediction: torch.Tensor,
                mask: torch.Tensor) -> float:
    return scores(confusion_matrix(labels, prediction, mask))['mIoU']


@torch.no_grad()
def main() -> None:
    args = parse_args()
    configs = [Config.fromfile(config) for _, config, _ in args.model]
    if args.cfg_options is not None:
        configs[0].merge_from_dict(args.cfg_options)
    init_default_scope(configs[0].get('default_scope', 'mmengine'))
    models = {
        title: load_model(config, checkpoint, args.device)
        for config, (title, _, checkpoint) in zip(configs, args.model)
    }
    dataset = DATASETS.build(configs[0].test_dataloader.dataset)
    for frame in args.frames:
        if not 0 <= frame < len(dataset):
            raise ValueError(f'--frames takes indices below {len(dataset)}, '
                             f'the number of test frames, got {frame}')

    renderer = VolumeRenderer(occ3d.POINT_CLOUD_RANGE, tuple(args.render_size))
    for frame in track(args.frames, 'Drawing'):
        batch = pseudo_collate([dataset[frame]])
        sample = batch['data_samples'][0]
        truth = sample.gt_occ.semantics
        mask = sample.gt_occ.mask_camera.bool()
        volumes = {'Ground truth': truth}
        volumes.update((title, predict(model, batch))
                       for title, model in models.items())
        labels = {
            title: volume.argmax(-1) if volume.dim() == 4 else volume
            for title, volume in volumes.items()
        }
        cameras = Cameras.from_data_samples([sample])
        geometry = renderer.trace_all(cameras, truth.shape)
        renders = {
            title: render(renderer, volume, geometry)
            for title, volume in volumes.items()
        }
        images = read_images(sample.metainfo['img_path'])
        name = f'{sample.metainfo["scene_name"]}, test frame {frame}'
        out = Path(args.out_dir)
        occupancy = frame_page(
            images, {title: v.numpy() for title, v in labels.items()},
            title=name,
            miou={
                title: frame_score(truth, labels[title], mask)
                for title in models
            },
            visible=mask.numpy())
        save_picture(out / f'occupancy_{frame}.png', occupancy)
        rendering = rendering_page(
            images, {title: depth for title, (depth, _) in renders.items()},
            {title: classes for title, (_, classes) in renders.items()},
            title=name)
        save_picture(out / f'rendering_{frame}.png', rendering)
    print(f'Pictures: {args.out_dir}')


if __name__ == '__main__':
    main()
