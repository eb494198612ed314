import importlib.util
import io
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from mmengine.config import Config
from rich.console import Console

from radocc_plugin.evaluation.suites import (
    check_settings,
    finished_records,
    plan_runs,
    read_suite,
    test_arguments as arguments_of,
    train_arguments,
)

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / 'configs' / 'suites').glob('*.yml'))
CONFIG = 'configs/radocc/radocc_bevdet-occ_tiny_1xb1-3e_synthetic.py'


def row(id, role, **kwargs):
    return dict(id=id, name=id.upper(), role=role, family='f', config=CONFIG, **kwargs)


@pytest.fixture
def write(tmp_path):

    def make(rows, **content):
        path = tmp_path / 'mine.yml'
        content = dict(dict(work_dir=str(tmp_path / 'runs')), **content)
        path.write_text(yaml.safe_dump(dict(rows=rows, **content)))
        return read_suite(path)

    return make


ROWS = [
    row('student', 'radocc', teacher='teacher', options={'a.b': 2}),
    row('teacher', 'teacher'),
    row('plain', 'baseline'),
]


def test_teachers_run_once_and_before_their_students(write):
    runs = plan_runs(write(ROWS), seeds=[0, 1])
    assert [(r.row.id, r.seed) for r in runs] == [
        ('teacher', 0),
        ('student', 0),
        ('plain', 0),
        ('student', 1),
        ('plain', 1),
    ]
    assert runs[3].teacher is runs[0]


def test_students_of_two_teachers_take_turns(write):
    runs = plan_runs(write(ROWS, teachers=2), seeds=[3, 0, 2])
    students = {run.seed: run for run in runs if run.row.id == 'student'}
    assert {seed: run.teacher.seed for seed, run in students.items()} == {3: 1, 0: 0, 2: 0}
    assert students[0].teacher is students[2].teacher
    assert sum(run.row.id == 'teacher' for run in runs) == 2


def test_seeds_that_are_added_later_share_the_teacher(write):
    first, later = plan_runs(write(ROWS), seeds=[0]), plan_runs(write(ROWS), seeds=[4])
    assert first[0].folder == later[0].folder


def test_checkpoints_are_tested_once(write):
    suite = write([row('official', 'baseline', checkpoint='x.pth')])
    (run,) = plan_runs(suite, seeds=[0, 1, 2])
    assert arguments_of(run, ['miou'])[:2] == [CONFIG, 'x.pth']


def test_student_gets_its_teacher_s_last_checkpoint_and_options(write):
    teacher, student, _ = plan_runs(write(ROWS), seeds=[0])
    with pytest.raises(ValueError, match="training of 'TEACHER' has not"):
        train_arguments(student)
    teacher.folder.mkdir(parents=True)
    (teacher.folder / 'last_checkpoint').write_text('teacher.pth\n')
    arguments = train_arguments(student, ['c=3'])
    assert arguments[:6] == [CONFIG, '--work-dir', str(student.folder), '--seed', '0', '--resume']
    assert arguments[6:] == [
        '--cfg-options',
        'a.b=2',
        'model.teacher.checkpoint=teacher.pth',
        'c=3',
    ]


def test_the_rate_is_scaled_where_a_config_says_for_which_batch(write):
    full = 'projects/FlashOcc/configs/flashocc_r50-m1-256x704_4xb4-24e_occ3d.py'
    for config, scales in ((full, True), (CONFIG, False)):
        (run,) = plan_runs(write([dict(row('a', 'baseline'), config=config)]), [0])
        assert ('--auto-scale-lr' in train_arguments(run)) is scales


def test_runs_of_other_settings_are_kept_apart(write, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    run = plan_runs(write([row('plain', 'baseline')]), seeds=[0])[0]
    check_settings(run, ['a=1'])
    check_settings(run, ['a=1'])
    with pytest.raises(ValueError, match='begun with other settings'):
        check_settings(run, ['a=2'])


def test_settings_of_students_are_checked_before_their_teacher_is_trained(
    write, monkeypatch, tmp_path
):
    """A suite begins with that; a teacher's checkpoint changes nothing later."""
    monkeypatch.chdir(tmp_path)
    teacher, *students = plan_runs(write(ROWS), seeds=[0])
    for run in (teacher, *students):
        check_settings(run)
    (teacher.folder / 'last_checkpoint').write_text('teacher.pth\n')
    for run in (teacher, *students):
        check_settings(run)


def test_missing_configs_name_the_row(write):
    (run,) = plan_runs(write([dict(row('a', 'baseline'), config='no.py')]), [0])
    with pytest.raises(ValueError, match="config of row 'a' .* no.py"):
        check_settings(run)


def test_records_of_other_suites_are_not_collected(write):
    suite = write(ROWS)
    folder = suite.work_dir / 'plain' / 'seed1'
    folder.mkdir(parents=True)
    for name in (
        'record_mine.json',
        'record_mine_points.json',
        'record_other.json',
        'record_mine2.json',
    ):
        (folder / name).touch()
    assert [p.name for p in finished_records(suite)] == [
        'record_mine.json',
        'record_mine_points.json',
    ]


@pytest.mark.parametrize(
    'rows,message',
    [
        ([dict(row('a', 'baseline'), colour=1)], r"row 0: .*unknown \['colour'\]"),
        ([dict(id='a')], r"row 0: missing \['name', 'role', 'family', 'config'\]"),
        ([row('a', 'tutor')], "role takes one of .* got 'tutor'"),
        ([row('a', 'radocc', teacher='b')], "teacher of row 'a' takes one of"),
        ([row('a', 'baseline'), row('a', 'radocc')], "two rows have the id 'a'"),
        ([row('a', 'baseline', options=[1])], 'options takes dict'),
    ],
)
def test_wrong_suites_name_file_and_row(write, rows, message):
    with pytest.raises(ValueError, match=f'mine.yml: .*{message}|mine.yml: {message}'):
        write(rows)


@pytest.mark.parametrize('teachers', [0, 'two'])
def test_a_suite_needs_a_number_of_teachers(write, teachers):
    with pytest.raises(ValueError, match='mine.yml: teachers takes a positive number, got'):
        write(ROWS, teachers=teachers)


def test_unknown_metrics_are_an_error(write):
    with pytest.raises(ValueError, match='metrics take .* got'):
        write(ROWS, metrics=['psnr'])


def test_suites_that_the_docs_name_are_shipped():
    assert {'occ3d-val', 'lidarseg', 'ablation', 'students'} <= {p.stem for p in SHIPPED}


@pytest.mark.parametrize('path', SHIPPED, ids=[p.stem for p in SHIPPED])
def test_shipped_suites_name_configs_that_exist(path):
    suite = read_suite(path)
    for one in suite.rows:
        assert (ROOT / one.config).is_file(), one.config
    assert {r.role for r in suite.rows} == {'teacher', 'baseline', 'radocc'}
    roles = [run.row.role for run in plan_runs(suite, [0, 1])]
    teachers = sum(row.role == 'teacher' for row in suite.rows)
    assert len(roles) - roles.count('teacher') == 2 * (len(suite.rows) - teachers)
    assert roles.count('teacher') == suite.teachers * teachers


@pytest.mark.parametrize('path', SHIPPED, ids=[p.stem for p in SHIPPED])
def test_shipped_options_change_settings_that_exist(path):
    for one in read_suite(path).rows:
        config = Config.fromfile(ROOT / one.config, import_custom_modules=False)
        for key in one.options:
            value = config
            for part in key.split('.'):
                if isinstance(value, list):
                    part = int(part)
                else:
                    assert part in value, f'{one.id}: {key}'
                value = value[part]


@pytest.mark.parametrize('jobs', [1, 2])
def test_a_suite_runs_from_an_empty_folder_and_goes_on(jobs, write, monkeypatch):
    spec = importlib.util.spec_from_file_location('tool', ROOT / 'tools' / 'reproduce_table.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    calls = []

    def called(name, arguments, run, gpus, jobs):
        calls.append((name, run.row.id, run.seed, ' '.join(arguments)))
        if name == 'train':
            (run.folder / 'last_checkpoint').write_text(f'{run.row.id}.pth\n')
        else:
            run.record.write_text('{}')

    monkeypatch.setattr(tool, '_call', called)
    suite = write(ROWS)
    args = SimpleNamespace(seeds=[0, 1], cfg_options=[], gpus=1, jobs=jobs)
    console = Console(file=io.StringIO())
    tool.run_suite(suite, args, console)
    assert len(calls) == 10  # five runs, each trained and tested
    done = [(name, id, seed) for name, id, seed, _ in calls]
    for seed in (0, 1):
        assert done.index(('test', 'teacher', 0)) < done.index(('train', 'student', seed))
    assert all('teacher.pth' in text for name, id, _, text in calls if id == 'student')

    calls.clear()
    (suite.work_dir / 'plain' / 'seed1' / 'record_mine.json').unlink()
    tool.run_suite(suite, args, console)
    assert [(name, id, seed) for name, id, seed, _ in calls] == [
        ('train', 'plain', 1),
        ('test', 'plain', 1),
    ]
