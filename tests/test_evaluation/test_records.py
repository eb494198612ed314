import json

import pytest

from radocc_plugin.evaluation import config_hash, read_records, write_record
from radocc_plugin.occ3d import CLASSES


def test_a_written_record_reads_back_equal(tmp_path, new_record):
    record = new_record(absent=['bus'])
    path = tmp_path / 'run' / 'record.json'
    write_record(path, record)
    assert read_records([path]) == [record]
    assert [p.name for p in path.parent.iterdir()] == ['record.json']


def test_absent_class_is_null_and_files_are_names(tmp_path, new_record):
    record = new_record(absent=['bus'])
    assert record['metrics']['per_class']['bus'] is None
    assert record['config']['file'] == 'tiny.py'
    assert record['checkpoint'] == 'epoch_6.pth'


def test_record_says_which_commit_ran(new_record):
    git = new_record()['git']
    assert set(git) == {'commit', 'dirty'}
    assert git['commit'] is None or len(git['commit']) == 40


def test_config_hash_ignores_where_and_how_a_config_runs():
    config = dict(
        work_dir='a',
        randomness=dict(seed=0),
        model=dict(type='M', channels=(1, 2)),
        val_dataloader=dict(dataset=dict(data_root='/x')),
    )
    moved = dict(
        val_dataloader=dict(dataset=dict(data_root='/y')),
        model=dict(channels=[1, 2], type='M'),
        work_dir='b',
        randomness=dict(seed=1),
    )
    assert config_hash(config) == config_hash(moved)
    changed = dict(config, model=dict(type='M', channels=(1, 3)))
    assert config_hash(config) != config_hash(changed)


def test_students_of_several_teachers_are_one_row():
    """Their folders differ, what they compute does not; another file does."""

    def of(checkpoint):
        return config_hash(dict(model=dict(teacher=dict(checkpoint=checkpoint))))

    assert of('runs/teacher/seed0/iter_9.pth') == of('runs/teacher/seed1/iter_9.pth')
    assert of('seed0/iter_9.pth') != of('seed0/iter_10.pth') != of(None)


def test_missing_metric_is_an_error(new_record):
    with pytest.raises(ValueError, match='metrics lack mIoU'):
        new_record(metrics={})


@pytest.mark.parametrize(
    'change,message',
    [
        (lambda r: r.pop('mask'), "field 'mask' is missing"),
        (lambda r: r['data'].pop('version'), "field 'data.version' is missing"),
        (
            lambda r: r['metrics']['per_class'].pop('car'),
            "field 'metrics.per_class.car' is missing",
        ),
        (lambda r: r.update(seed='0'), "field 'seed' takes int, got '0'"),
        (lambda r: r.update(role='tutor'), "field 'role' takes one of"),
        (lambda r: r['metrics'].update(mIoU='high'), "field 'metrics.mIoU' takes a number"),
    ],
)
def test_wrong_record_names_file_and_field(tmp_path, new_record, change, message):
    record = new_record()
    change(record)
    path = tmp_path / 'bad.json'
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=f'bad.json: {message}'):
        read_records([path])


@pytest.mark.parametrize('text', ['{"name": ', '[]', None])
def test_unreadable_record_names_the_file(tmp_path, text):
    path = tmp_path / 'bad.json'
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match='bad.json: '):
        read_records([path])


def test_scores_that_are_not_numbers_become_null(new_record, tmp_path):
    """RayIoU of frames without a ray is NaN; JSON has none."""
    nan = float('nan')
    metrics = {f'occ/IoU_{name}': nan for name in CLASSES[:17]}
    metrics.update({'occ/mIoU': nan, 'occ/IoU': 1.0})
    metrics.update({f'ray/RayIoU{at}': nan for at in ('', '@1', '@2', '@4')})
    record = new_record(metrics=metrics)
    assert record['metrics']['RayIoU@4'] is None
    write_record(tmp_path / 'record.json', record)
    assert read_records([tmp_path / 'record.json']) == [record]
