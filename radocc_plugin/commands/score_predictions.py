"""Evaluates a prediction dump without a model.

    python tools/test.py predictions work_dirs/predictions \\
        --data-root data/nuscenes --metrics miou rayiou --out scores.json

A dump holds ``SCENE/TOKEN/labels.npz`` with ``semantics`` (X, Y, Z), as
``tools/test.py --dump`` writes it.
"""

import argparse
import json
import os
from contextlib import ExitStack
from multiprocessing import Pool
from pathlib import Path


import torch
from rich.progress import Progress

from radocc_plugin.datasets import BENCHMARKS
from radocc_plugin.evaluation import prediction_path, read_prediction
from radocc_plugin.evaluation.sample_fields import MASKS
from radocc_plugin.fileio import write_atomically
from radocc_plugin.registry import METRICS

NAMES = ('miou', 'rayiou', 'lidarseg')


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('dump', type=Path, help='folder of the predictions')
    parser.add_argument('--data-root', required=True)
    parser.add_argument('--ann-file', default='radocc_infos_val.pkl')
    parser.add_argument(
        '--benchmark',
        choices=BENCHMARKS,
        default='occ3d-nuscenes',
        help='whose labels the predictions are measured with',
    )
    parser.add_argument(
        '--key-ego',
        default='lidar',
        help='key_ego of the dataset that the model was tested with, lidar or '
        'a camera; places the points of lidarseg in the predicted volume '
        '(default: lidar)',
    )
    parser.add_argument(
        '--range',
        nargs=6,
        type=float,
        metavar=('X0', 'Y0', 'Z0', 'X1', 'Y1', 'Z1'),
        help='point_cloud_range of the dataset that the model was tested '
        'with, metres (default: that of the benchmark)',
    )
    parser.add_argument('--metrics', nargs='+', choices=NAMES, default=['miou'])
    parser.add_argument(
        '--mask',
        choices=MASKS,
        help='voxels that mIoU counts (default: camera where the labels have that mask)',
    )
    parser.add_argument(
        '--ring',
        nargs=2,
        type=float,
        metavar=('FROM', 'TO'),
        help='horizontal distances that mIoU counts, metres',
    )
    parser.add_argument('--device', default='cpu', help='where RayIoU casts its rays')
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='processes, on the CPU')
    parser.add_argument('--out', help='writes the scores as JSON')
    return parser.parse_args(argv)


def build_metrics(args) -> list:
    """The metrics of the command line."""
    configs = dict(
        miou=dict(type='radocc_plugin.OccMetric', mask=args.mask, ring=args.ring),
        rayiou=dict(type='radocc_plugin.RayIoU'),
        # a dump has no second choice for voxels that it calls free
        lidarseg=dict(type='radocc_plugin.LidarSegMetric', free_voxels='miss'),
    )
    return [METRICS.build(configs[name]) for name in args.metrics]


def count_sample(info: dict, dump: Path, metrics: list, device: str) -> list:
    """What each metric counts of one sample: one small array each."""
    sample = dict(
        info,
        gt_occ={k: torch.as_tensor(v) for k, v in info['gt_occ'].items()},
        pred_occ=dict(
            semantics=read_prediction(
                prediction_path(dump, info['scene_name'], info['token']), info['label_space']
            ).to(device)
        ),
    )
    for metric in metrics:
        metric.results = []
        metric.process(None, [sample])
    return [metric.results[0] for metric in metrics]


def set_up_worker(*work) -> None:
    """Keeps dataset, dump, metrics and device in a worker process."""
    global _work
    torch.set_num_threads(1)
    _work = work


def count_index(index: int) -> list:
    dataset, *rest = _work
    return count_sample(dataset[index], *rest)


def check_complete(dataset, dump: Path) -> None:
    """Raises one ValueError that counts the missing predictions."""
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    missing = [
        path
        for path in (prediction_path(dump, i['scene_name'], i['token']) for i in infos)
        if not path.is_file()
    ]
    if missing:
        raise ValueError(
            f'{len(missing)} of {len(dataset)} predictions are missing, e.g. {missing[0]}'
        )


def main(argv=None) -> dict:
    args = parse_args(argv)
    kind = BENCHMARKS[args.benchmark]
    dataset = kind(
        data_root=args.data_root,
        ann_file=args.ann_file,
        pipeline=[dict(type=kind.LABEL_LOADER)],
        point_cloud_range=args.range,
        key_ego=args.key_ego,
        test_mode=True,
    )
    check_complete(dataset, args.dump)
    metrics = build_metrics(args)
    for metric in metrics:
        metric.dataset_meta = dataset.metainfo
    work = (dataset, args.dump, metrics, args.device)
    with ExitStack() as stack:
        count = map
        if args.device == 'cpu' and args.workers > 1:
            pool = Pool(args.workers, set_up_worker, work)
            count = stack.enter_context(pool).imap
        else:  # a CUDA device does not survive a fork
            set_up_worker(*work)
        progress = stack.enter_context(Progress())
        counts = list(
            progress.track(
                count(count_index, range(len(dataset))), total=len(dataset), description='samples'
            )
        )

    scores = {}
    for metric, results in zip(metrics, zip(*counts)):
        metric.results = list(results)
        scores.update(metric.evaluate(len(dataset)))
    if args.out:
        scores = {k: None if v != v else v for k, v in scores.items()}
        conditions = dict(
            benchmark=args.benchmark,
            ann_file=args.ann_file,
            key_ego=args.key_ego,
            range=args.range,
            num_samples=len(dataset),
            mask=dataset.label_space.mask(args.mask, '--mask'),
            ring=args.ring,
        )
        write_atomically(args.out, json.dumps(dict(conditions, scores=scores), indent=2))
    return scores
