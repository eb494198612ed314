"""What the analysis says of a toy student and teacher."""
import importlib.util
from pathlib import Path

import pytest
import torch
from tests.test_distillation.toy_distillation import (batch_of,
                                                      distilled)

from radocc_plugin.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location(
        'analyse_distillation', ROOT / 'tools' / 'analyse_distillation.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def study(tool, visible=None, **options):
    torch.manual_seed(0)
    model = MODELS.build(distilled(**options))
    inputs, samples = batch_of()
    if visible is not None:
        for sample in samples:
            sample.gt_occ.mask_camera[visible:] = False
    return tool.study(model, dict(inputs=inputs, data_samples=samples))


def test_gradients_are_measured_against_the_students_own(tool):
    once, twice = (study(tool, rdc=weight)['losses'] for weight in (1.0, 2.0))
    assert once['loss_occ']['ratio'] == pytest.approx(1)
    assert once['loss_occ']['cosine'] == pytest.approx(1, abs=1e-5)
    assert twice['loss_rdc']['ratio'] == pytest.approx(
        2 * once['loss_rdc']['ratio'], rel=1e-4)
    assert abs(once['loss_rdc']['cosine']) < 1


@pytest.mark.parametrize('visible, share', [(None, 1.0), (0, 0.0)])
def test_the_share_on_visible_voxels_follows_the_mask(tool, visible, share):
    losses = study(tool, visible)['losses']
    assert losses['loss_rdc']['visible'] == pytest.approx(share, abs=1e-5)


def test_every_ray_is_counted_once(tool):
    studies = [study(tool), study(tool)]
    rows = tool.ray_rows(studies)[:-1]  # without the tenth of most KL
    for column in (1, 2):
        total = sum(float(row[column].rstrip('%')) for row in rows)
        assert total == pytest.approx(100, abs=3)  # rounded numbers
    head, *losses = tool.gradient_rows(studies)
    assert head[0] == 'loss_occ' and head[3:5] == ['1.000', '+1.00']
    assert {row[0] for row in losses} > {'loss_rdc'}


def test_a_plain_student_is_refused(tool):
    from mmengine.config import Config
    path = 'projects/BEVDetOcc/configs/bevdet-occ_tiny_1xb1-3e_synthetic.py'
    args = tool.parse_args([path])
    with pytest.raises(ValueError, match='takes the config of a distilled'):
        tool.load_model(Config.fromfile(ROOT / path), args)
