import os
import pickle

import numpy as np
import pytest

from radocc_plugin.datasets.info_file import load_infos, save_infos


class _RunsCode:
    def __reduce__(self):
        return os.system, ('true',)


@pytest.mark.parametrize('protocol', (2, 4, 5))
def test_containers_and_numpy_values_are_read_back(tmp_path, protocol):
    value = dict(matrix=np.eye(4), flag=np.bool_(True), count=np.int64(3), names=('a',))
    path = tmp_path / 'infos.pkl'
    path.write_bytes(pickle.dumps(dict(data_list=[value]), protocol))
    read = load_infos(path)['data_list'][0]
    assert np.array_equal(read.pop('matrix'), value.pop('matrix'))
    assert read == value


def test_a_pickle_with_code_in_it_is_refused(tmp_path):
    path = tmp_path / 'infos.pkl'
    path.write_bytes(pickle.dumps(dict(data_list=[_RunsCode()])))
    with pytest.raises(ValueError, match='infos.pkl.*system'):
        load_infos(path)


@pytest.mark.parametrize(
    'content',
    (
        b'',
        b'no pickle',
        pickle.dumps([]),
        pickle.dumps(dict(infos=[dict(timestamp=1)], metadata={})),
        pickle.dumps(dict(data_list=3)),
        pickle.dumps(dict(data_list=[], metainfo=dict(info_version='radocc-0.1'))),
        pickle.dumps(dict(data_list=list(range(99))))[:-20],
    ),
)
def test_a_file_that_is_no_info_file_is_named(tmp_path, content):
    path = tmp_path / 'infos.pkl'
    path.write_bytes(content)
    with pytest.raises(ValueError, match='infos.pkl'):
        load_infos(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match='nothing.pkl'):
        load_infos(tmp_path / 'nothing.pkl')


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(Exception):
        save_infos(dict(data_list=[lambda: 0]), tmp_path / 'infos.pkl')
    assert not list(tmp_path.iterdir())
