"""What the training and test commands refuse and find before they start."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from radocc_plugin.commands import run

ROOT = Path(__file__).resolve().parents[2]
CONFIG = 'projects/BEVDetOcc/configs/bevdet-occ_tiny_1xb1-3e_synthetic.py'


def load(name):
    spec = importlib.util.spec_from_file_location(
        f'{Path(name).stem}_tool', ROOT / f'tools/{name}.py'
    )
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
        ('benchmark', ['model', 'nowhere.py']),
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


@pytest.mark.parametrize(
    'arguments,message',
    [
        (['train.py', 'nowhere.py'], 'error: config takes a config file, none at'),
        (['benchmark.py', 'model', 'nowhere.py'], 'error: config takes a config file'),
        (['test.py', 'predictions', 'nowhere', '--data-root', 'nowhere'], 'error: '),
        (['visualize.py', 'nothing'], "invalid choice: 'nothing'"),
        (['misc/print_config.py', 'nowhere.py'], 'error: config takes a config file'),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message, tmp_path):
    tool, *arguments = arguments
    result = subprocess.run(
        [sys.executable, ROOT / 'tools' / tool, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert message in result.stderr and 'Traceback' not in result.stderr


def test_errors_of_others_keep_their_traceback():
    def fails():
        raise ValueError('of a user of the package')

    with pytest.raises(ValueError, match='of a user'):
        run(fails)


@pytest.mark.parametrize('given,want', [('torch', 'torch'), ('none', None)])
def test_batch_norms_over_processes_are_a_flag(begun, given, want):
    assert begun('train', CONFIG, '--sync-bn', given).sync_bn == want


@pytest.mark.parametrize(
    'script,arguments,command',
    [
        (
            'dist_train.sh',
            ['c.py', '2', '--seed', '1'],
            '-m torch.distributed.run --nnodes=1 --node_rank=0 --nproc_per_node=2 '
            '--master_addr=127.0.0.1 --master_port=29500 TOOLS/train.py c.py --launcher pytorch '
            '--seed 1',
        ),
        (
            'dist_test.sh',
            ['c.py', 'x.pth', '2', '--metrics', 'miou'],
            '-m torch.distributed.run --nnodes=1 --node_rank=0 --nproc_per_node=2 '
            '--master_addr=127.0.0.1 --master_port=29500 TOOLS/test.py c.py x.pth '
            '--launcher pytorch --metrics miou',
        ),
        (
            'slurm_train.sh',
            ['gpu', 'job', 'c.py', 'out', '--amp'],
            '-p gpu --job-name=job --gres=gpu:4 --ntasks=4 --ntasks-per-node=4 --cpus-per-task=5 '
            '--kill-on-bad-exit=1 python -u TOOLS/train.py c.py --work-dir out '
            '--launcher slurm --amp',
        ),
    ],
)
def test_launchers_pass_everything_on(script, arguments, command, tmp_path):
    """With a python and an srun that print what they get."""
    echo = tmp_path / 'echo.sh'
    echo.write_text('#!/usr/bin/env bash\necho "$@"\n')
    echo.chmod(0o755)
    (tmp_path / 'srun').symlink_to(echo)
    environment = dict(os.environ, PATH=f'{tmp_path}:{os.environ["PATH"]}', GPUS='4')
    environment['PYTHON'] = 'python' if script.startswith('slurm') else str(echo)
    path = ROOT / 'tools' / script
    result = subprocess.run(
        ['bash', path, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == command.replace('TOOLS', str(ROOT / 'tools'))
    usage = subprocess.run(['bash', path], capture_output=True, text=True)
    assert usage.returncode == 2 and usage.stderr.startswith(f'usage: tools/{script}')


def test_a_config_is_printed_with_its_bases(capsys):
    load('misc/print_config').main([CONFIG, '--cfg-options', 'train_cfg.max_epochs=7'])
    text = capsys.readouterr().out
    assert "type='radocc_plugin.BEVDetOcc'" in text and 'max_epochs=7' in text
