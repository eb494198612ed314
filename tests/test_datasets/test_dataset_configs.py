"""The base configs build, and feed what models expect."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from radocc_plugin.datasets.info_file import save_infos
from radocc_plugin.segments import write_label_map
from radocc_plugin.structures import OccDataPreprocessor

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/_base_/datasets'


@pytest.mark.parametrize(
    'name, input_size', (('synthetic', (96, 256)), ('occ3d_nuscenes', (256, 704)))
)
@pytest.mark.parametrize('role', ('student', 'teacher', 'radocc'))
def test_config_feeds_batches(name, input_size, role, tiny_root, tiny_infos, tmp_path):
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    if role != 'student':
        cfg.train_dataloader.dataset.pipeline = cfg[f'{role}_train_pipeline']
    if role == 'teacher':
        for loader in (cfg.val_dataloader, cfg.test_dataloader):
            loader.dataset.pipeline = cfg.teacher_test_pipeline
    infos = tmp_path / 'infos.pkl'
    save_infos(dict(metainfo={}, data_list=tiny_infos), str(infos))
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader_cfg = cfg[loader]
        assert loader_cfg.dataset.data_root == cfg.data_root
        loader_cfg.update(num_workers=0, persistent_workers=False, batch_size=2)
        loader_cfg.dataset.update(data_root=str(tiny_root), ann_file=str(infos))
        batch = next(iter(Runner.build_dataloader(loader_cfg, seed=0)))
        out = OccDataPreprocessor()(batch)
        assert out['inputs']['imgs'].shape == (2, 6, 3, *input_size)
        if role == 'teacher' or (role, loader) == ('radocc', 'train_dataloader'):
            assert all(len(points) for points in out['inputs']['points'])
        elif loader != 'train_dataloader':
            # A student is tested on its cameras alone.
            assert 'points' not in out['inputs']
        tokens = {sample.token for sample in out['data_samples']}
        assert tokens == {'token0', 'token1'}
        for sample in out['data_samples']:
            assert sample.gt_occ.semantics.dtype == torch.uint8
            assert sample.gt_occ.mask_camera.dtype == torch.bool
            if loader == 'train_dataloader' and name == 'synthetic':
                assert sample.gt_depth.shape == (6, *input_size)
            # Only the paper's form reads segments.
            if (loader, role, name) == ('train_dataloader', 'radocc', 'synthetic'):
                assert sample.segments.shape == (6, 225, 400)
            else:
                assert 'segments' not in sample


def test_the_split_of_each_loader():
    cfg = Config.fromfile(CONFIGS / 'synthetic.py')
    assert cfg.train_dataloader.dataset.ann_file == 'radocc_infos_train.pkl'
    assert cfg.val_dataloader.dataset.ann_file == 'radocc_infos_val.pkl'
    assert cfg.test_dataloader.dataset.ann_file == 'radocc_infos_val.pkl'
    assert cfg.val_dataloader.dataset.test_mode


# the pipeline of RadOcc is the teacher's
@pytest.mark.parametrize('role', ('student', 'radocc'))
@pytest.mark.parametrize('family', ('bevdet', 'bevdet4d', 'bevformer', 'fbocc'))
def test_config_of_a_family_feeds_what_its_models_stream(family, role, world, tmp_path):
    cfg = Config.fromfile(CONFIGS / f'occ3d_nuscenes_{family}.py')
    assert Config.fromstring(cfg.dump(), '.py').to_dict() == cfg.to_dict()
    if role != 'student':
        cfg.train_dataloader.dataset.pipeline = cfg[f'{role}_train_pipeline']
    size = (64, 96) if family == 'bevformer' else (256, 704)
    samples = []
    for loader, split in (('train_dataloader', 'train'), ('val_dataloader', 'val')):
        loader_cfg = cfg[loader]
        assert loader_cfg.dataset.data_root == 'data/nuscenes'
        loader_cfg.update(num_workers=0, persistent_workers=False)
        if loader == 'train_dataloader':
            loader_cfg.batch_size = 2
        loader_cfg.dataset.update(data_root=str(world))
        for transform in loader_cfg.dataset.pipeline:
            if transform.type == 'radocc_plugin.LoadSegments':
                transform.segments_root = str(_segments(world, tmp_path))
        batch = next(iter(Runner.build_dataloader(loader_cfg, seed=0)))
        out = OccDataPreprocessor(pad_size_divisor=32)(batch)
        batch_size = loader_cfg.batch_size
        assert out['inputs']['imgs'].shape == (batch_size, 6, 3, *size)
        samples.append(out['data_samples'])
        adjacent = out['inputs'].get('adjacent_imgs')
        count = dict(bevdet=0, bevdet4d=2, bevformer=3, fbocc=0)[family]
        if family == 'bevformer' and split == 'val':
            count = 0
        assert (adjacent.shape[1] if count else adjacent) == (count or None)
    train, val = samples
    assert val[0].prev == ''  # a stream starts where a scene does
    if family == 'bevformer':
        assert train[0].can_bus.shape == val[0].can_bus.shape == (18,)
        assert train[0].adjacent_can_bus.shape == (3, 18)
    if family == 'fbocc':
        assert all(s.start_of_sequence for s in (*train, *val))
        assert not set(train[0].gt_occ.semantics.unique().tolist()) - {*range(18), 255}
    if family in ('bevdet4d', 'fbocc') or (family, role) == ('bevdet', 'radocc'):
        assert train[0].gt_depth.shape == (6, *size)
    assert 'segments' not in train[0]


def _segments(world, folder):
    """Segment maps for the images of a world."""
    for image in (world / 'samples').glob('CAM*/*.jpg'):
        path = folder / image.relative_to(world).with_suffix('.png')
        path.parent.mkdir(parents=True, exist_ok=True)
        write_label_map(path, np.ones((45, 80), np.int32))
    return folder
