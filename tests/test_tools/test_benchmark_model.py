"""Stages of our models, and the tool on the real keyframe."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from rich.console import Console

from radocc_plugin.commands import benchmark_model
from radocc_plugin.engine import Stage, find_stages
from tests.support.models import build_model, make_batch

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device('cpu')
STUDENT = 'projects/BEVDetOcc/configs/bevdet-occ_tiny_1xb1-3e_synthetic.py'
TEACHER = 'projects/OccTeacher/configs/occ-teacher-fusion_tiny_1xb1-3e_synthetic.py'
RADOCC = 'configs/radocc/radocc_bevdet-occ_tiny_1xb1-3e_synthetic.py'
CAMERA = {
    'img_backbone',
    'img_neck',
    'img_view_transformer',
    'img_view_transformer.depth_net',
    'img_bev_encoder_backbone',
    'img_bev_encoder_neck',
    'occ_head',
}
LIDAR = {'pts_voxel_encoder', 'pts_middle_encoder', 'pts_fusion'}
LOSSES = {'img_view_transformer.loss', 'occ_head.loss'}
STEP = {'rest', 'backward', 'optimizer'}


@pytest.fixture(scope='module')
def tool():
    return benchmark_model


def prefixed(prefix, names):
    return {f'{prefix}.{name}' for name in names}


def packed_batch():
    """A batch as the pipeline packs it."""
    inputs, samples = make_batch()
    images = torch.randint(256, inputs['imgs'].shape[1:], dtype=torch.uint8)
    samples[0].segments = torch.ones(6, 28, 50, dtype=torch.int32)
    return dict(inputs=dict(img=[images], points=inputs['points']), data_samples=samples)


def test_operators_are_counted_stage_by_stage(tool):
    config = Config.fromfile(ROOT / RADOCC)
    model = tool.build(config.model)
    step = tool.make_train_step(model, config.optim_wrapper)
    rows = tool.count_operators(step, model, packed_batch(), CPU)
    counts = {name: int(number) for name, number, _ in rows}
    assert counts.pop('all') == sum(counts.values())
    assert {'student.img_backbone', 'losses.depth', 'backward', 'rest'} <= set(counts)
    # RadOcc's own part beside two small networks
    ours = sum(n for name, n in counts.items() if name.startswith(('renderer', 'losses')))
    assert ours < 0.4 * sum(counts.values())


def test_multiply_adds_are_those_of_the_layers(tool):
    """Of the image backbone, from the shapes that its convolutions see."""
    model = tool.build(Config.fromfile(ROOT / STUDENT).model)
    counts = []

    def count(layer, inputs, output):
        taps = layer.weight[0].numel()
        counts.append(output.numel() * taps)

    for layer in model.img_backbone.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    rows = tool.count_flops(tool.test_step, model, packed_batch(), CPU)
    table = {name: gflops for name, gflops, _ in rows}
    assert {'img_backbone', 'img_neck', 'occ_head', 'all'} <= set(table)
    assert table['img_backbone'] == f'{sum(counts) / 1e9:.1f}' != '0.0'


@pytest.mark.parametrize(
    'path, train, expected',
    [
        (STUDENT, False, CAMERA | {'rest'}),
        (TEACHER, True, CAMERA | LIDAR | LOSSES | STEP),
        (
            RADOCC,
            True,
            prefixed('student', CAMERA | LOSSES)
            | prefixed('teacher', CAMERA | LIDAR)
            | STEP
            | {'renderer', 'renderer.trace', 'losses.depth', 'losses.semantics'},
        ),
    ],
)
def test_every_stage_of_our_models_is_measured(tool, path, train, expected):
    config = Config.fromfile(ROOT / path)
    model = tool.build(config.model)
    step = tool.make_train_step(model, config.optim_wrapper) if train else tool.test_step
    before = model.state_dict()['occ_head.final_conv.conv.weight'].clone()
    stages = tool.measure(model, packed_batch(), step, CPU, repeat=1, warm_up=0)
    assert set(stages) == expected
    assert all(stage.seconds > 0 for stage in stages.values())
    if path == RADOCC:
        assert stages['renderer'].calls == 1  # teacher and student at once
    after = model.state_dict()['occ_head.final_conv.conv.weight']
    assert torch.equal(before, after) != train


def test_a_model_of_ones_own_has_its_modules_as_stages():
    stages = find_stages(build_model(STUDENT).occ_head, CPU)
    assert set(stages) == {'final_conv', 'predicter'}


def test_tables_hold_every_stage_and_the_sum(tool, capsys):
    rows = tool.stage_rows(dict(a=Stage(1.0, 2.0, 2**30, 1), b=Stage(3.0, 5.0, None, 2)), 2**29)
    assert rows == [
        ['model and batch loaded', '-', '-', '-', '-', '0.50'],
        ['a', '1', '1.000', '2.000', '25.0 %', '1.00'],
        ['b', '2', '3.000', '5.000', '75.0 %', '-'],
        ['all', '1', '4.000', '7.000', '100.0 %', '1.00'],
    ]
    head = ['stage', 'calls', 'seconds', 'CPU s', 'share', 'peak GiB']
    text = tool.show_table(Console(), 'Title', head, rows)
    assert '| `b` | 2 | 3.000 | 5.000 | 75.0 % | - |' in text
    assert 'Title' in capsys.readouterr().out


def test_operators_are_sorted_by_their_own_time(tool):
    def step(model, batch, meter):
        torch.ones(500, 500) @ torch.ones(500, 500)

    rows = tool.operator_rows(step, None, None, CPU)
    seconds = [float(row[2]) for row in rows]
    assert seconds == sorted(seconds, reverse=True)
    assert any('mm' in row[0] for row in rows)


def test_arguments_that_make_no_sense_are_named(tool, capsys):
    with pytest.raises(SystemExit):
        tool.parse_args([STUDENT, '--batch', '0'])
    assert '--batch takes a positive number' in capsys.readouterr().err
    with pytest.raises(ValueError, match='--teacher takes'):
        tool.build(Config.fromfile(ROOT / STUDENT).model, 'teacher.pth')


@pytest.mark.slow
def test_the_tool_measures_a_radocc_step_on_the_keyframe(shared, tmp_path):
    keyframe = shared / 'data' / 'nuscenes_frame'
    if not keyframe.is_dir():
        pytest.skip(f'{keyframe} is absent')
    result = subprocess.run(
        [
            sys.executable,
            'tools/benchmark.py',
            'model',
            RADOCC,
            '--keyframe',
            keyframe.resolve(),
            '--repeat',
            '1',
            '--warm-up',
            '0',
            '--batch',
            '2',
            '--profile',
            '--out',
            tmp_path / 'table.md',
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr
    text = (tmp_path / 'table.md').read_text()
    for stage in (
        'student.occ_head',
        'teacher.pts_fusion',
        'renderer.trace',
        'losses.depth',
        'backward',
        'aten::',
    ):
        assert f'`{stage}' in text
