"""The tiny BEVDet-Occ of the synthetic world, with its real teacher."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner

from radocc_plugin.registry import DATASETS, MODELS
from tests.support.models import make_batch

ROOT = Path(__file__).resolve().parents[2]
NAME = 'bevdet-occ_tiny_1xb1-3e_synthetic.py'
RADOCC = ROOT / 'configs' / 'radocc' / f'radocc_{NAME}'
STUDENT = ROOT / 'projects' / 'BEVDetOcc' / 'configs' / NAME
pytestmark = pytest.mark.slow


def test_every_alignment_trains_the_tiny_student():
    """All rows of the ablation in one step."""
    config = Config.fromfile(ROOT / 'configs' / 'ablation' / f'ablation-feature_{NAME}')
    config.model.teacher.checkpoint = None
    config.model.losses = {
        f'{row}_{name}': loss
        for row, losses in config.alignments.items()
        if row not in ('rsc_affinity', 'rsc_kl')
        for name, loss in losses.items()
    }
    torch.manual_seed(0)
    model = MODELS.build(config.model).train()
    inputs, samples = make_batch()
    for sample in samples:
        sample.segments = torch.arange(6 * 28 * 50).view(6, 28, 50) // 97 % 40
    losses = model(inputs, samples, mode='loss')
    ours = {
        name: float(loss) for name, loss in losses.items() if name not in ('loss_occ', 'loss_depth')
    }
    assert len(ours) == 8 and all(0 < v < 1e3 for v in ours.values()), ours
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    assert model.losses['feature_feature'].adapter.weight.grad.abs().sum() > 0


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    from radocc_plugin.datasets.info_converter import convert_nuscenes
    from radocc_plugin.synthetic import generate

    root = tmp_path_factory.mktemp('world')
    generate(
        str(root),
        scenes_train=1,
        scenes_val=1,
        frames=1,
        image_size=(400, 225),
        workers=1,
        progress=False,
    )
    convert_nuscenes(str(root), 'v1.0-synthetic')
    return root


def evaluate(path, checkpoint, world, work_dir):
    config = Config.fromfile(path)
    config.load_from, config.work_dir = str(checkpoint), str(work_dir)
    dataset = config.test_dataloader.dataset
    dataset.data_root = str(world)
    config.test_dataloader.num_workers = 0
    return Runner.from_cfg(config).test()


def test_evaluation_is_the_same_without_lidar_files_and_teacher(world, tmp_path):
    """And that of the plain student under its own config."""
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(RADOCC).model)
    checkpoint = tmp_path / 'distilled.pth'
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    with_lidar = evaluate(RADOCC, checkpoint, world, tmp_path / 'with')
    bare = tmp_path / 'bare'
    shutil.copytree(world, bare)
    folders = [f for f in bare.rglob('LIDAR_TOP') if f.is_dir()]
    assert folders and any(any(f.iterdir()) for f in folders)
    for folder in folders:
        shutil.rmtree(folder)
    without = evaluate(RADOCC, checkpoint, bare, tmp_path / 'without')
    plain = evaluate(STUDENT, checkpoint, bare, tmp_path / 'plain')
    # a class that is absent has a NaN
    same = pytest.approx(with_lidar, rel=0, abs=0, nan_ok=True)
    assert without == same and plain == same
    assert not Path(Config.fromfile(RADOCC).model.teacher.checkpoint).exists()


def test_the_tool_caches_what_the_teacher_says(world, tmp_path):
    """The training samples, un-augmented, through the teacher's pipeline."""
    config = Config.fromfile(RADOCC)
    teacher_config = Config.fromfile(ROOT / config.model.teacher.model)
    torch.manual_seed(0)
    checkpoint = tmp_path / 'teacher.pth'
    teacher = MODELS.build(teacher_config.model).eval()
    torch.save(dict(state_dict=teacher.state_dict()), checkpoint)
    subprocess.run(
        [
            sys.executable,
            'tools/cache_teacher.py',
            RADOCC,
            '--out',
            tmp_path / 'cache',
            '--workers',
            '0',
            '--device',
            'cpu',
            '--cfg-options',
            f'model.teacher.checkpoint={checkpoint}',
            f'train_dataloader.dataset.data_root={world}',
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )

    dataset = teacher_config.test_dataloader.dataset
    dataset.update(data_root=str(world), ann_file='radocc_infos_train.pkl')
    batch = pseudo_collate([DATASETS.build(dataset)[0]])
    batch = teacher.data_preprocessor(batch)
    with torch.no_grad():
        live = teacher(**batch, mode='tensor')
    config.model.teacher.update(checkpoint=str(checkpoint), cache=str(tmp_path / 'cache'))
    cached = (
        MODELS.build(config.model)
        .teacher.outputs({}, batch['data_samples'], torch.device('cpu'))
        .occ_logits
    )
    torch.testing.assert_close(cached, live, atol=1e-3, rtol=1e-3)
