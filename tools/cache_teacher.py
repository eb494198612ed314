"""Writes the logits of a distilled config's teacher to disk, once.

    python tools/cache_teacher.py \\
        configs/radocc/radocc_bevdet-occ_r50-256x704_8xb4-24e_occ3d.py \\
        --out data/nuscenes/teacher_cache [--top-k 3] [--shard 0/8]

Then train with

    --cfg-options model.teacher.cache=data/nuscenes/teacher_cache

The teacher sees the training samples through the test pipeline of its own
config, without augmentation. Finished samples are skipped, so an interrupted
run goes on where it stopped; --shard I/N takes every N-th sample, for N jobs
that fill one folder.
"""

import argparse
import sys
from pathlib import Path
from typing import Tuple

# The folder above holds the package, in a clone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from radocc_plugin.commands import run  # first: sets the environment of torch

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.utils import track_iter_progress
from torch.utils.data import DataLoader, Subset

from radocc_plugin.config_file import dataset_configs, load_config
from radocc_plugin.datasets import TeacherPipeline
from radocc_plugin.distillation import FrozenTeacher, TeacherCache, build_tap
from radocc_plugin.distillation.teacher_cache import teacher_hash
from radocc_plugin.engine.streaming import is_streaming
from radocc_plugin.evaluation.testing import is_type
from radocc_plugin.fileio import expand_path, file_hash
from radocc_plugin.registry import DATASETS, TRANSFORMS


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config with a RadOccDistiller')
    parser.add_argument('--out', required=True, help='folder of the cache')
    parser.add_argument(
        '--top-k',
        type=int,
        help='keep this many logits of a voxel besides the free class; default all, in float16',
    )
    parser.add_argument('--shard', default='0/1', help='I/N: every N-th sample from the I-th')
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(argv)


def parse_shard(text: str) -> Tuple[int, int]:
    """Number and count of shards.

    Raises:
        ValueError: If it is not I/N with 0 <= I < N.
    """
    index, _, count = text.partition('/')
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise ValueError(f'--shard takes I/N with 0 <= I < N, got {text!r}')
    return int(index), int(count)


def make_dataset(config: Config, teacher_config: Config):
    """The training samples, through the teacher's test pipeline, and whose
    key ego frame the volumes lie in.

    As without a cache, cameras and key ego frame are the student's, unless
    its pipeline makes inputs of the teacher's own (``TeacherPipeline``): its
    volumes then serve students of any key ego frame (None).
    """
    dataset = teacher_config.test_dataloader.dataset.copy()
    train, *others = dataset_configs(config.train_dataloader.dataset)
    if others:
        raise ValueError(
            f'a cache takes one training dataset, {config.filename} has {1 + len(others)}'
        )
    names = ['data_root', 'ann_file', 'sweeps_per_keyframe', 'backend_args']
    own_inputs = any(
        is_type(step, TeacherPipeline, TRANSFORMS) for step in train.get('pipeline', ())
    )
    if not own_inputs:
        for name in ('cams', 'key_ego'):
            dataset.pop(name, None)  # without, the student has the default
            names.append(name)
    dataset.update({name: train[name] for name in names if name in train})
    dataset.test_mode = False  # sweeps are no samples of a test
    dataset = DATASETS.build(dataset)
    return dataset, None if own_inputs else getattr(dataset, 'key_ego', None)


def main(argv=None) -> None:
    args = parse_args(argv)
    shard, shards = parse_shard(args.shard)
    config = load_config(args.config, options=args.cfg_options)
    options = {name: config.model.teacher.get(name) for name in ('model', 'checkpoint', 'tap')}
    if not isinstance(options['model'], str):
        raise ValueError(
            f'model.teacher.model of {args.config} takes the '
            'path of a config file, whose test pipeline loads '
            'the samples'
        )
    teacher = FrozenTeacher(
        **options, allow_partial=config.model.teacher.get('allow_partial', False)
    )
    dataset, key_ego = make_dataset(config, load_config(options['model']))
    model = teacher.model(torch.device(args.device))
    if is_streaming(model):
        raise ValueError(
            f'{type(model).__name__} carries its past from frame '
            'to frame; a cache takes a teacher of single frames'
        )
    cache = TeacherCache(expand_path(args.out))
    cache.begin(
        teacher_hash(options['model'], options['tap']),
        options['checkpoint'] and file_hash(options['checkpoint']),
        config.model.renderer.point_cloud_range,
        args.top_k,
        build_tap(options['tap'], model, 'teacher.tap').class_weight,
        space=getattr(dataset, 'label_space', None),
        key_ego=key_ego,
    )
    tokens = [dataset.get_data_info(i)['token'] for i in range(len(dataset))]
    todo = [i for i in range(shard, len(tokens), shards) if not cache.file(tokens[i]).is_file()]
    print(f'{len(todo)} samples to do, {len(tokens)} in all')
    loader = DataLoader(Subset(dataset, todo), num_workers=args.workers, collate_fn=pseudo_collate)
    for batch in track_iter_progress((loader, len(loader))):
        batch = model.data_preprocessor(batch, False)
        (sample,) = batch['data_samples']
        if not np.allclose(sample.metainfo.get('bda_mat', np.eye(4)), np.eye(4)):
            raise ValueError(
                f'the test pipeline of {options["model"]} '
                'augments the ego frame; a cache takes it as '
                'it is'
            )
        logits = teacher.outputs(batch['inputs'], [sample], torch.device(args.device)).occ_logits
        cache.write(
            sample.metainfo['token'],
            logits[0],
            args.top_k,
            config.model.renderer.get('free_index', -1),
        )
    print(f'In {args.out}')


if __name__ == '__main__':
    run(main)
