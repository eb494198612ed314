"""Every config of the ablation differs from RadOcc's in its losses only."""

from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

from radocc_plugin.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
ABLATION = sorted((ROOT / 'configs' / 'ablation').glob('*_1xb1-3e_*.py'))
PAPER = sorted((ROOT / 'configs' / 'ablation').glob('ablation-paper_*.py'))
RADOCC = 'configs/radocc/radocc_bevdet-occ_tiny_1xb1-3e_synthetic.py'
READS_POINTS = ('LoadLidarPoints', 'PointsToDepthMaps')


@pytest.mark.parametrize('path', ABLATION, ids=lambda path: path.stem)
def test_only_the_losses_differ_and_the_model_builds(path):
    assert len(path.read_text().splitlines()) <= 8
    config, radocc = Config.fromfile(path), Config.fromfile(ROOT / RADOCC)
    model = MODELS.build(config.model)
    assert len(model.losses) == len(config.model.losses)
    for name in ('losses', 'student_features', 'teacher_features', 'schedules'):
        config.model.pop(name, None), radocc.model.pop(name, None)
    ours = config.to_dict()
    # Whose segments are read is a row of its own.
    for step in ours['train_dataloader']['dataset']['pipeline']:
        if 'Segments' in step['type']:
            step.pop('segments_root', None)
    ours['load_segments'].pop('segments_root', None)
    for name in ('alignments', 'rdc', 'rsc', 'voxel_tap', 'radocc_warm_up'):
        ours.pop(name, None)
    assert ours == radocc.to_dict()


@pytest.mark.parametrize('path', PAPER, ids=lambda path: path.stem)
def test_the_papers_form_differs_in_losses_and_renderer(path):
    config = Config.fromfile(path)
    twin = Config.fromfile(
        ROOT / 'configs/radocc' / path.name.replace('ablation-paper_', 'radocc_')
    )
    assert set(config.model.losses) == {'depth', 'semantics'}
    assert set(twin.model.losses) == {'voxel'}
    for name in ('losses', 'renderer'):
        config.model.pop(name), twin.model.pop(name)
    config.pop('paper')
    pipeline = config.train_dataloader.dataset.pipeline
    assert pipeline.pop(-2)['type'] == 'radocc_plugin.LoadSegments'
    assert config.to_dict() == twin.to_dict()


def test_the_losses_of_both_terms_are_those_of_radocc():
    losses = {}
    for name in ('rdc', 'rsc'):
        (path,) = (p for p in ABLATION if p.stem.startswith(f'ablation-{name}_'))
        losses.update(Config.fromfile(path).model.losses)
    assert losses == Config.fromfile(ROOT / RADOCC).model.losses


def test_the_suite_names_every_config_once():
    suite = yaml.safe_load((ROOT / 'configs/suites/ablation-synthetic.yml').read_text())
    configs = [row['config'] for row in suite['rows']]
    ours = {str(path.relative_to(ROOT)) for path in ABLATION}
    assert ours | {RADOCC} < set(configs)
    assert all((ROOT / config).is_file() for config in configs)
    assert len(set(configs)) == len(configs)


@pytest.mark.parametrize(
    'path', [*ABLATION, *sorted((ROOT / 'configs/radocc').glob('*.py'))], ids=lambda path: path.stem
)
def test_testing_a_student_reads_no_points(path):
    config = Config.fromfile(path)
    for loader in (config.val_dataloader, config.test_dataloader):
        names = [step.type.split('.')[-1] for step in loader.dataset.pipeline]
        assert not set(names) & set(READS_POINTS)
