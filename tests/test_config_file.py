"""Config files are found; those from before the models moved say what to change."""

import subprocess
import sys
from pathlib import Path

import pytest

from radocc_plugin.config_file import MOVED, find_config, load_config, shipped_configs, shipped_root

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize('old', MOVED)
@pytest.mark.parametrize('form', ["['{}']", "'{}.detector'"])
def test_an_import_of_a_moved_module_names_the_new_one(tmp_path, old, form):
    path = tmp_path / 'mine.py'
    path.write_text(f'custom_imports = dict(imports={form.format(old)})\n')
    with pytest.raises(ValueError, match=f'{old}.*take .{MOVED[old]}'):
        load_config(str(path))


def test_other_imports_are_done(tmp_path, monkeypatch):
    (tmp_path / 'my_students.py').write_text('LOADED = True\n')
    (tmp_path / 'mine.py').write_text("custom_imports = dict(imports=['my_students'])\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert 'my_students' not in sys.modules
    load_config(str(tmp_path / 'mine.py'))
    assert sys.modules.pop('my_students').LOADED


def test_training_an_old_work_dir_names_the_new_module(tmp_path):
    path = tmp_path / 'old.py'
    path.write_text("custom_imports = dict(imports=['projects.FBOcc.fb_occ'])\n")
    result = subprocess.run(
        [sys.executable, 'tools/train.py', str(path), '--work-dir', str(tmp_path / 'work')],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode
    assert "take 'radocc_plugin.models'" in result.stderr


@pytest.mark.parametrize('name', ['segments_slic', 'bevdet-occ_r50-256x704_8xb4-24e_occ3d.py'])
def test_shipped_configs_are_found_by_their_names_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = find_config(name)
    assert found.is_file() and found.stem == name.removesuffix('.py')
    (tmp_path / found.name).write_text('')
    assert find_config(found.name) == Path(found.name), 'a file at hand comes first'


def test_a_name_that_none_has_gets_close_ones():
    with pytest.raises(ValueError, match='segments_slic') as error:
        find_config('segments_slik', 'config')
    assert str(error.value).startswith('config takes a config file, none at segments_slik')


def test_names_of_shipped_configs_are_unique():
    names = [path.stem for path in shipped_configs(shipped_root())]
    assert len(names) > 90 and len(set(names)) == len(names)
