"""The base configs build, and feed what models expect."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from radocc_plugin.datasets.info_file import save_infos
from radocc_plugin.structures import OccDataPreprocessor

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/_base_/datasets'


@pytest.mark.parametrize('name, input_size',
                         (('synthetic', (96, 256)),
                          ('occ3d_nuscenes', (256, 704))))
@pytest.mark.parametrize('role', ('student', 'teacher', 'radocc'))
def test_config_feeds_batches(name, input_size, role, tiny_root, tiny_infos,
                              tmp_path):
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
        loader_cfg.update(
            num_workers=0, persistent_workers=False, batch_size=2)
        loader_cfg.dataset.update(
            data_root=str(tiny_root), ann_file=str(infos))
        batch = next(iter(Runner.build_dataloader(loader_cfg, seed=0)))
        out = OccDataPreprocessor()(batch)
        assert out['inputs']['imgs'].shape == (2, 6, 3, *input_size)
        if role == 'teacher' or (role, loader) == ('radocc',
                                                   'train_dataloader'):
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
            if loader == 'train_dataloader' and role == 'radocc':
                assert sample.segments.shape == (6, 225, 400)


def test_the_split_of_each_loader():
    cfg = Config.fromfile(CONFIGS / 'synthetic.py')
    assert cfg.train_dataloader.dataset.ann_file == 'radocc_infos_train.pkl'
    assert cfg.val_dataloader.dataset.ann_file == 'radocc_infos_val.pkl'
    assert cfg.test_dataloader.dataset.ann_file == 'radocc_infos_val.pkl'
    assert cfg.val_dataloader.dataset.test_mode
