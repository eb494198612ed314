import json

import pytest

from radocc_plugin.evaluation.training_log import seconds_per_step, training_gpus


def write_log(folder, lines):
    path = folder / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(json.dumps(line) for line in lines))


def test_median_of_the_training_windows(tmp_path):
    write_log(tmp_path / '1', [dict(loss=1.0, time=9.0), dict(loss=1.0, time=1.0)])
    write_log(
        tmp_path / '2',
        [
            dict(loss=1.0, time=9.0),
            dict(loss=1.0, time=2.0),
            dict(loss=1.0, time=6.0),
            {'occ/mIoU': 3.0, 'time': 50.0},
        ],
    )
    assert seconds_per_step(tmp_path) == pytest.approx(2.0)


def test_a_single_window_counts(tmp_path):
    write_log(tmp_path / '1', [dict(loss=1.0, time=4.0)])
    assert seconds_per_step(tmp_path) == 4.0


def test_nothing_without_a_log(tmp_path):
    assert seconds_per_step(tmp_path) is None


@pytest.mark.parametrize('cuda,number,want', [('False', 1, 0), ('True', 8, 8)])
def test_gpus_are_read_from_the_log(tmp_path, cuda, number, want):
    assert training_gpus(tmp_path) is None
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'run.log').write_text(
        f'    CUDA available: {cuda}\n    GPU number: {number}\n'
    )
    assert training_gpus(tmp_path) == want
