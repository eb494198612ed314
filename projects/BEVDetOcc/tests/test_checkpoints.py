"""Published checkpoints load with nothing missing and nothing unexpected."""

from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_state_dict

from radocc_plugin.distillation import FrozenTeacher
from radocc_plugin.registry import MODELS
from tests.support.models import ROOT, build_model, load_config, read_key_list

BEVDET = 'projects/BEVDetOcc/configs/bevdet-occ_'
FLASH = 'projects/FlashOcc/configs/flashocc_'
# Key list of a published checkpoint, its config, its parameters in millions.
PUBLISHED = {
    'flashocc_bevdet-occ-r50': (BEVDET + 'r50-256x704_8xb4-24e_occ3d.py', 29.021),
    'bevdet-occ-r50-4d-stereo-24e': (BEVDET + 'r50-4d-stereo-256x704_8xb4-24e_occ3d.py', 34.970),
    'bevdet-occ-r50-4dlongterm-stereo-24e_384704': (
        BEVDET + 'r50-4dlongterm-stereo-384x704_8xb4-24e_occ3d.py',
        35.357,
    ),
    'bevdet-occ-stbase-4d-stereo-512x1408-24e': (
        BEVDET + 'swin-b-4d-stereo-512x1408_32xb2-24e_occ3d.py',
        121.278,
    ),
    'flashocc_flashocc-r50': (FLASH + 'r50-m1-256x704_4xb4-24e_occ3d.py', 44.744),
    'flashocc_flashocc-r50-4d-stereo': (FLASH + 'r50-4d-stereo-256x704_4xb4-24e_occ3d.py', 58.668),
}
TINY = BEVDET + 'tiny-4d-stereo_1xb1-3e_synthetic.py'
TINIES = [BEVDET + 'tiny_1xb1-3e_synthetic.py', TINY, FLASH + 'tiny_1xb1-3e_synthetic.py']


@pytest.mark.parametrize('name', PUBLISHED)
def test_golden_keys_and_shapes(name):
    config, parameters = PUBLISHED[name]
    state = read_key_list(name)
    model = build_model(config)
    count = sum(p.numel() for p in model.parameters())
    assert round(count / 1e6, 3) == parameters
    assert len(model.state_dict()) == len(state)
    # MMEngine's loader, which reports what it misses and what is left over
    load_state_dict(model, state, strict=True)
    assert not model.occ_head.predicter[2].weight.any()


def dev2_1(state: dict) -> dict:
    """A state under the names of BEVDet dev2.1."""
    return {key.replace('occ_head.', ''): value for key, value in state.items()}


@pytest.mark.parametrize('kind', ['plain', 'ema'])
@pytest.mark.parametrize('distilled', [False, True])
def test_load_from_takes_the_files_of_dev2_1(tmp_path, kind, distilled):
    source = build_model(TINY, seed=1).state_dict()
    path = str(tmp_path / 'epoch_24.pth')
    others = dict(updates=21000, epoch=24) if kind == 'ema' else dict(meta={})
    torch.save(dict(state_dict=dev2_1(source), **others), path)
    config = load_config('configs/radocc/radocc_' + Path(TINY).name if distilled else TINY)
    runner = Runner(
        model=config.model,
        work_dir=str(tmp_path),
        load_from=path,
        experiment_name=f'load_{kind}_{distilled}',
    )
    runner.load_or_resume()
    state = runner.model.state_dict()
    assert state.keys() == source.keys()
    for key, value in source.items():
        assert torch.equal(state[key], value), key


def test_a_file_of_dev2_1_serves_as_teacher(tmp_path):
    source = build_model(TINY, seed=1).state_dict()
    path = str(tmp_path / 'epoch_24.pth')
    torch.save(dict(state_dict=dev2_1(source), meta={}), path)
    teacher = FrozenTeacher(str(ROOT / TINY), path)
    state = teacher.model(torch.device('cpu')).state_dict()
    assert all(torch.equal(state[key], source[key]) for key in source)


@pytest.mark.parametrize('path', TINIES)
def test_distilled_and_plain_checkpoints_have_the_same_keys(path):
    student = build_model(path)
    distilled = MODELS.build(load_config('configs/radocc/radocc_' + Path(path).name).model)
    assert distilled.state_dict().keys() == student.state_dict().keys()
