"""What the training and test commands refuse and find before they start."""

import importlib.util
from pathlib import Path

import pytest
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
CONFIG = 'projects/BEVDetOcc/configs/bevdet-occ_tiny_1xb1-3e_synthetic.py'


def load(name):
    spec = importlib.util.spec_from_file_location(f'{name}_tool', ROOT / f'tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def begun(monkeypatch, tmp_path):
    """Runs a command, elsewhere, up to its runner; gives its config."""
    monkeypatch.chdir(tmp_path)

    class Begun(Exception):
        pass

    def run(name, *arguments):
        tool = load(name)
        configs = []

        def from_cfg(config):
            configs.append(config)
            raise Begun

        monkeypatch.setattr(tool.Runner, 'from_cfg', from_cfg)
        with pytest.raises(Begun):
            tool.main(list(arguments))
        return configs[0]

    return run


@pytest.mark.parametrize('name,arguments', [('train', [CONFIG]), ('test', [CONFIG, 'x.pth'])])
def test_shipped_configs_are_found_from_any_folder(begun, name, arguments):
    config = begun(name, *arguments)
    want = Config.fromfile(ROOT / CONFIG)
    assert config.model == want.model
    # data and results stay where the command was given
    assert config.work_dir == f'work_dirs/{Path(CONFIG).stem}'


@pytest.mark.parametrize(
    'name,arguments',
    [
        ('train', ['nowhere.py']),
        ('test', ['nowhere.py', 'x']),
        ('cache_teacher', ['nowhere.py', '--out', 'x']),
        ('benchmark_model', ['nowhere.py']),
        ('analyse_distillation', ['nowhere.py', '--student', 'x']),
    ],
)
def test_a_missing_config_is_named(name, arguments):
    with pytest.raises(ValueError, match='config takes .* nowhere.py'):
        load(name).main(arguments)


def test_lidarseg_asks_for_the_view_that_makes_probabilities(begun):
    with pytest.raises(ValueError, match='--tta identity.*free_voxels'):
        load('test').main([CONFIG, 'x.pth', '--metrics', 'lidarseg'])
    config = begun('test', CONFIG, 'x.pth', '--metrics', 'lidarseg', '--tta', 'identity')
    assert config.test_evaluator[0].free_voxels == 'occupied'
    config = begun(
        'test',
        CONFIG,
        'x.pth',
        '--cfg-options',
        'test_evaluator.type=radocc_plugin.LidarSegMetric',
        'test_evaluator._delete_=True',
        'test_evaluator.free_voxels=miss',
    )
    assert config.test_evaluator.free_voxels == 'miss'


@pytest.mark.parametrize('tta', [[], ['--tta', 'identity']])
def test_no_metrics_load_no_labels(begun, tta, capsys):
    config = begun('test', CONFIG, 'x.pth', '--metrics', 'none', '--dump', 'dump', *tta)
    assert [e.type for e in config.test_evaluator] == ['radocc_plugin.DumpPredictions']
    pipeline = str(config.test_dataloader.dataset.pipeline)
    assert 'LoadOcc3D' not in pipeline and 'PackOccInputs' in pipeline
    assert 'loader is left out' in capsys.readouterr().out


@pytest.mark.parametrize('arguments', [['none'], ['none', 'miou', '--dump', 'x']])
def test_no_metrics_take_a_dump_and_no_others(arguments, capsys):
    with pytest.raises(SystemExit):
        load('test').main([CONFIG, 'x.pth', '--metrics', *arguments])
    assert '--metrics none takes' in capsys.readouterr().err
