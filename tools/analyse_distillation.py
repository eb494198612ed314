"""What a teacher can tell a student, measured on training samples.

    python tools/analyse_distillation.py CONFIG --student FILE \\
        [--teacher FILE] [--samples 12] [--out FILE]

CONFIG is that of a distilled student; --student is a checkpoint of it or of
the plain student (random weights without). Four tables come out:

- how far the teacher is ahead: both masked mIoUs on the same samples;
- the gradient of every loss, at its full weight, at the student's logits: its
  norm, the ratio to that of the student's own losses and the cosine between
  the two (on frames with labels), and how much of it (squares) falls on
  voxels that have labels;
- which rays carry the divergence of the rendered depths, by the distance
  where the teacher's ray ends;
- where each loss pulls: the share of its gradient (squares) by the distance
  of the voxel to the nearest camera, and how much of what the teacher's rays
  cross in front of their end lies in no camera mask and was never supervised.

A last line says what to change. A gradient a hundredth of the student's own
changes nothing; one with a cosine near 1 repeats the labels; a teacher that
is not ahead has nothing to tell.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import Dict, List, Sequence

# The folder above holds the package, in a clone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from radocc_plugin.commands import run  # first: sets the environment of torch

import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.progress import track
from torch import Tensor

from radocc_plugin.checkpoints import DISTILL, load_weights
from radocc_plugin.config_file import load_config
from radocc_plugin.distillation import RadOccDistiller
from radocc_plugin.distillation.tap import OccTap
from radocc_plugin.evaluation import confusion_matrix, scores
from radocc_plugin.evaluation.terminal import show_table
from radocc_plugin.fileio import write_atomically
from radocc_plugin.geometry import Cameras, VoxelGrid
from radocc_plugin.losses import DistillBatch, ModelOutputs
from radocc_plugin.registry import DATASETS, MODELS

DISTANCES = (0.0, 10.0, 20.0, 40.0)  # metres along the optical axis
# Of a voxel to the nearest camera, metres.
PULL_DISTANCES = (0.0, 2.0, 4.0, 8.0, 16.0, 32.0)
NO_HIT = 'no hit'


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('config', help='config of a distilled student')
    add('--student', help='its checkpoint; random weights without')
    add('--teacher', help="the teacher's checkpoint, if not the config's")
    add('--samples', type=int, default=12, help='training samples, evenly spaced')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    add('--out', type=Path, help='Markdown file of the tables')
    add('--cfg-options', nargs='+', action=DictAction, default={})
    args = parser.parse_args(argv)
    if args.samples < 1:
        parser.error('--samples takes a positive number')
    return args


def logits_gradient(loss: Tensor, recorded: list, tap: OccTap) -> Tensor:
    """Gradient of a loss at the tapped logits, (B, X, Y, Z, C)."""
    output = recorded[tap.call_index]
    tensor = output if tap.output_index is None else output[tap.output_index]
    (gradient,) = torch.autograd.grad(loss, tensor, retain_graph=True, allow_unused=True)
    if gradient is None:
        gradient = torch.zeros_like(tensor)
    if tap.output_index is not None:
        gradient = {tap.output_index: gradient}
    return tap.read({tap.call_index: gradient})


def study(model: RadOccDistiller, data: dict) -> dict:
    """One batch: gradients by loss, confusions and divergences of rays."""
    inputs, samples = data['inputs'], data['data_samples']
    with model.student_tap.record(model.student) as recorded:
        losses = model(inputs, samples, mode='loss')
    losses = {
        name: value for name, value in losses.items() if 'loss' in name and value.requires_grad
    }
    logits = model.student_tap.read(recorded).detach()
    device = logits.device
    labels = torch.stack([s.gt_occ.semantics for s in samples]).to(device)
    mask = torch.ones_like(labels, dtype=torch.bool)
    if all('mask_camera' in s.gt_occ for s in samples):
        mask = torch.stack([s.gt_occ.mask_camera for s in samples])
        mask = mask.to(device).bool()
    gradients = {
        name: logits_gradient(value, recorded, model.student_tap) for name, value in losses.items()
    }
    reference = sum(
        (gradient for name, gradient in gradients.items() if name not in model.returned),
        torch.zeros_like(logits),
    )
    cameras = Cameras.from_data_samples(samples, device)
    bins = torch.bucketize(
        camera_distances(cameras, model.renderer.point_cloud_range, logits.shape[1:4]),
        logits.new_tensor(PULL_DISTANCES[1:]),
        right=True,
    )
    rows = {}
    for name, gradient in gradients.items():
        norm = gradient.norm()
        if norm == 0:  # a loss of something else than the logits
            continue
        rows[name] = dict(
            value=losses[name].item(),
            norm=norm.item(),
            visible=(gradient[mask].norm() / norm).item() ** 2,
            pull=pull_shares(gradient, bins),
        )
        if reference.norm() > 0:
            rows[name]['ratio'] = (norm / reference.norm()).item()
            rows[name]['cosine'] = torch.cosine_similarity(
                gradient.flatten(), reference.flatten(), dim=0
            ).item()
    with torch.no_grad():
        outputs = dict(
            teacher=model.teacher.outputs(inputs, samples, device),
            student=ModelOutputs(logits, class_weight=model.student_tap.class_weight),
        )
        confusions = {
            name: confusion_matrix(
                labels, output.occ_logits.argmax(-1), mask, num_classes=logits.shape[-1]
            )
            for name, output in outputs.items()
        }
        generator = torch.Generator().manual_seed(0)
        draws_segments = model.renderer.ray_sampler == 'segments'
        batch = DistillBatch.from_data_samples(
            samples,
            model.losses.values(),
            device,
            generator,
            needs=('gt_occ', 'mask_camera') + ('segments',) * draws_segments,
        )
        geometry = model.renderer.trace(
            cameras,
            logits.shape[1:4],
            generator,
            points=inputs.get('points'),
            segments=batch.segments,
        )
        theirs, ours = model.renderer.render_pair(
            *(model.rendered_volumes(output, name, batch) for name, output in outputs.items()),
            geometry,
        )
        rays = dict(
            kl=ours.ray_kl(theirs),
            end=theirs.depth_given_hit,
            error=(ours.depth - theirs.depth).abs(),
            no_hit=theirs.no_hit,
        )
        volumes, density = model.rendered_volumes(outputs['teacher'], 'teacher', batch)
        light = model.renderer.light(volumes, geometry, density).entered
    hidden = None
    if bool(mask.any()):
        hidden = (light[~mask].sum() / light.sum()).item()
    return dict(losses=rows, confusions=confusions, rays=rays, hidden=hidden)


def camera_distances(
    cameras: Cameras, point_cloud_range: Sequence[float], shape: Sequence[int]
) -> Tensor:
    """Metres from each voxel to the nearest camera, (B, X, Y, Z)."""
    grid = VoxelGrid(tuple(point_cloud_range), tuple(shape))
    centres = grid.centres(cameras.cam2ego.device).flatten(0, 2)
    cam2ego = cameras.bda_mat[:, None].double() @ cameras.cam2ego.double()
    positions = cam2ego[..., :3, 3].float()
    return torch.stack([torch.cdist(centres, own).amin(1).view(*shape) for own in positions])


def pull_shares(gradient: Tensor, bins: Tensor) -> List[float]:
    """Share of the squares of a gradient (B, X, Y, Z, C) in each bin."""
    squares = gradient.square().sum(-1).flatten().double()
    sums = torch.zeros(len(PULL_DISTANCES), dtype=torch.double, device=squares.device)
    sums = sums.index_add(0, bins.flatten(), squares)
    return (sums / sums.sum()).tolist()


def lead_rows(studies: List[dict], classes: Sequence[str]) -> List[List[str]]:
    """Masked mIoU and IoU of both models."""
    rows = []
    for name in ('teacher', 'student'):
        result = scores(sum(s['confusions'][name] for s in studies), classes)
        rows.append([name, f'{result["mIoU"]:.2f}', f'{result["IoU"]:.2f}'])
    return rows


def gradient_rows(studies: List[dict]) -> List[List[str]]:
    """Means over the samples of every loss that reaches the logits."""
    values: Dict[str, dict] = defaultdict(lambda: defaultdict(list))
    for item in studies:
        for loss, row in item['losses'].items():
            for key, value in row.items():
                values[loss][key].append(value)

    def mean(row, key, form):
        return format(sum(row[key]) / len(row[key]), form) if row[key] else '-'

    return [
        [
            loss,
            mean(row, 'value', '.3f'),
            mean(row, 'norm', '.2e'),
            mean(row, 'ratio', '.3f'),
            mean(row, 'cosine', '+.2f'),
            mean(row, 'visible', '.0%'),
        ]
        for loss, row in values.items()
    ]


def pull_rows(studies: List[dict]) -> List[List[str]]:
    """Share of each loss's pull by the distance to the nearest camera."""
    pulls: Dict[str, list] = defaultdict(list)
    for item in studies:
        for loss, row in item['losses'].items():
            pulls[loss].append(row['pull'])
    return [
        [loss, *(f'{sum(x) / len(x):.1%}' for x in zip(*shares))] for loss, shares in pulls.items()
    ]


def advice(studies: List[dict], own: Sequence[str]) -> str:
    """One line: what to change before a long training.

    Args:
        studies: Of ``study``.
        own: Names of the student's own losses.
    """
    near: Dict[str, list] = defaultdict(list)
    cosines: Dict[str, list] = defaultdict(list)
    for item in studies:
        for loss, row in item['losses'].items():
            if loss not in own:
                near[loss].append(sum(row['pull'][:2]))
                cosines[loss].append(row.get('cosine', 0.0))
    found = [s['hidden'] for s in studies if s['hidden'] is not None]
    for loss, shares in near.items():
        if sum(shares) / len(shares) > 0.5:
            return (
                f'{loss} puts {sum(shares) / len(shares):.0%} of its pull '
                'on voxels within 4 m of a camera: take '
                'RenderedVoxelConsistency with a cap.'
            )
    for loss, values in cosines.items():
        if sum(values) / len(values) < -0.1:
            return (
                f'{loss} pulls against the labels (cosine '
                f'{sum(values) / len(values):+.2f}): lower its weight, or '
                'its labelled_factor.'
            )
    if found and sum(found) / len(found) > 0.5:
        return (
            f"{sum(found) / len(found):.0%} of the teacher's light lies "
            'in voxels that no label observed: compare with '
            "observed='mask_camera'."
        )
    return 'Nothing stands out: the losses pull where labels do.'


def ray_rows(studies: List[dict]) -> List[List[str]]:
    """Rays by where the teacher's end: their share, and that of the KL."""
    rays = {key: torch.cat([s['rays'][key] for s in studies]) for key in studies[0]['rays']}
    misses = rays['no_hit'] > 0.5
    total = rays['kl'].sum()
    bounds = [*DISTANCES, float('inf')]
    groups = {
        f'{low:g} to {high:g} m': ~misses & (rays['end'] >= low) & (rays['end'] < high)
        for low, high in zip(bounds, bounds[1:])
    }
    groups[NO_HIT] = misses
    rows = []
    for name, group in groups.items():
        count = int(group.sum())
        rows.append(
            [
                name,
                f'{count / len(misses):.0%}',
                f'{rays["kl"][group].sum() / total:.0%}',
                f'{rays["kl"][group].mean():.2f}' if count else '-',
                f'{rays["error"][group].median():.2f}' if count else '-',
            ]
        )
    top = rays['kl'].topk(max(1, len(misses) // 10)).values
    rows.append(['tenth of most KL', '10%', f'{top.sum() / total:.0%}', f'{top.mean():.2f}', '-'])
    return rows


def own_losses(studies: List[dict], ours: Sequence[str]) -> List[str]:
    """Names of the losses that are the student's own."""
    return sorted({n for s in studies for n in s['losses']} - set(ours))


def load_model(config: Config, args: argparse.Namespace) -> RadOccDistiller:
    """The distiller with the weights asked for, in training mode.

    Raises:
        ValueError: If the config is not a distilled student's.
    """
    if 'teacher' not in config.model:
        raise ValueError(
            f'{args.config}: takes the config of a distilled '
            f'student, got model.type={config.model.type!r}'
        )
    if args.teacher:
        config.model.teacher.checkpoint = args.teacher
    model = MODELS.build(config.model)
    # all losses at their full weights, whatever the iteration
    model.schedules = {}
    if args.student:
        load_weights(model, args.student, optional=DISTILL)
    return model.to(args.device).train()


def main(argv=None) -> None:
    args = parse_args(argv)
    console = Console()
    config = load_config(args.config, options=args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmengine'))
    torch.manual_seed(0)
    model = load_model(config, args)
    dataset = DATASETS.build(config.train_dataloader.dataset)
    count = min(args.samples, len(dataset))
    studies = []
    for i in track(range(count), 'Samples', console=console):
        sample = dataset[i * len(dataset) // count]
        data = model.data_preprocessor(pseudo_collate([sample]), True)
        studies.append(study(model, data))
    tables = [
        show_table(
            console,
            f'On {count} training samples, camera mask if any',
            ['model', 'mIoU', 'IoU'],
            lead_rows(studies, dataset.metainfo['classes']),
        ),
        show_table(
            console,
            "Gradients at the student's logits",
            ['loss', 'value', 'norm', 'ratio to own losses', 'cosine', 'on visible voxels'],
            gradient_rows(studies),
        ),
        show_table(
            console,
            "Rays by where the teacher's end",
            ['distance', 'rays', 'share of KL', 'KL (nats)', 'median depth error (m)'],
            ray_rows(studies),
        ),
        show_table(
            console,
            'Pull by the distance to the nearest camera',
            [
                'loss',
                *(
                    f'{low:g} to {high:g} m'
                    for low, high in zip(PULL_DISTANCES, [*PULL_DISTANCES[1:], float('inf')])
                ),
            ],
            pull_rows(studies),
        ),
    ]
    hidden = [s['hidden'] for s in studies if s['hidden'] is not None]
    lines = [advice(studies, own_losses(studies, model.returned))]
    if hidden:
        lines.insert(
            0,
            f'{sum(hidden) / len(hidden):.0%} of the light of the '
            "teacher's rays lies outside the camera mask.",
        )
    for line in lines:
        console.print(line, highlight=False)
    tables += [f'{line}\n' for line in lines]
    if args.out:
        write_atomically(args.out, '\n'.join(tables))
        console.print(f'{args.out} written')


if __name__ == '__main__':
    run(main)
