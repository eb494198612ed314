"""The shipped configs: published keys, full size, the synthetic world."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_state_dict

from radocc_plugin.occ3d import OCC3D_NUSCENES
from tests.support.drives import RADOCC, TINY
from tests.support.models import ROOT, build_model, load_config, read_key_list

CONFIGS = sorted((ROOT / 'projects/BEVFormerOcc/configs').glob('*.py'))
# Key list of a published checkpoint: its config and parameters in millions.
PUBLISHED = dict(bevformer_base_occ=('base', 61.252), bevformer_small_occ=('small', 58.821))


@pytest.mark.parametrize('name', PUBLISHED)
def test_golden_keys_and_shapes(name):
    size, parameters = PUBLISHED[name]
    state = read_key_list(name)
    model = build_model(
        f'projects/BEVFormerOcc/configs/bevformer-occ_{size}-no-mask_8xb1-24e_occ3d.py'
    )
    count = sum(p.numel() for p in model.parameters())
    assert round(count / 1e6, 3) == parameters
    assert len(model.state_dict()) == len(state)
    load_state_dict(model, state, strict=True)
    assert not model.pts_bbox_head.bev_embedding.weight.any()
    assert not model.pts_bbox_head.use_mask


@pytest.mark.slow
@pytest.mark.parametrize('path', CONFIGS, ids=[p.stem for p in CONFIGS])
def test_config_builds_with_all_voxels_and_its_name_says_its_mask(path):
    config = load_config(path)
    model = build_model(path)
    head = model.pts_bbox_head
    transformer = head.transformer
    rows, columns = head.bev_shape
    space = OCC3D_NUSCENES.cropped(config.val_dataloader.dataset.get('point_cloud_range'))
    cells = (columns, rows, transformer.pillar_h)
    assert tuple(n * transformer.upsample for n in cells) == space.shape
    assert head.use_mask == ('no-mask' not in path.stem)
    assert transformer.shift_frame == 'ego'
    for loader in (config.val_dataloader, config.test_dataloader):
        assert loader.sampler.type == 'radocc_plugin.SceneSampler'
        assert loader.batch_size == 1
    assert config.train_dataloader.dataset.queue_length > 1


def test_published_weights_meet_cameras_in_their_order():
    for size in ('base', 'small'):
        config = load_config(
            f'projects/BEVFormerOcc/configs/bevformer-occ_{size}_8xb1-24e_occ3d.py'
        )
        for loader in ('train_dataloader', 'val_dataloader'):
            assert [name[4:] for name in config[loader].dataset.cams] == [
                'FRONT',
                'FRONT_RIGHT',
                'FRONT_LEFT',
                'BACK',
                'BACK_LEFT',
                'BACK_RIGHT',
            ]


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    from radocc_plugin.datasets.info_converter import convert_nuscenes
    from radocc_plugin.segments import write_label_map
    from radocc_plugin.synthetic import generate

    root = tmp_path_factory.mktemp('world')
    generate(
        root, scenes_train=1, scenes_val=1, frames=3, image_size=(80, 45), workers=1, progress=False
    )
    convert_nuscenes(str(root), 'v1.0-synthetic', progress=False)
    for image in (root / 'samples').glob('CAM*/*.jpg'):
        path = root / 'segments' / image.relative_to(root).with_suffix('.png')
        path.parent.mkdir(parents=True, exist_ok=True)
        write_label_map(path, np.arange(45 * 80).reshape(45, 80) // 90)
    return root


@pytest.mark.slow
@pytest.mark.parametrize('path', [TINY, RADOCC])
def test_an_epoch_on_the_synthetic_world(path, world, tmp_path):
    """Queues in training, then a stream over the scenes of val."""
    config = load_config(path)
    config.work_dir = str(tmp_path)
    config.experiment_name = Path(path).stem
    config.train_cfg.update(max_epochs=1, val_interval=1)
    if 'teacher' in config.model:
        config.model.teacher.checkpoint = None
        config.model.renderer.max_rays = 300
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        loader.num_workers = 0
        loader.dataset.data_root = str(world)
    runner = Runner.from_cfg(config)
    before = {k: v.clone() for k, v in runner.model.state_dict().items()}
    runner.train()
    assert runner.iter == 3
    student = getattr(runner.model, 'student', runner.model)
    assert len(student.stream) == 1
    changed = [
        name
        for name, value in runner.model.state_dict().items()
        if not torch.equal(value, before[name])
    ]
    assert any(name.endswith('bev_embedding.weight') for name in changed)
    state = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    build_model(TINY).load_state_dict(state['state_dict'], strict=True)
