"""Configs are what their families' published.yml says that was published."""

from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

from tests.support.models import ROOT

FILES = sorted((ROOT / 'projects').glob('*/published.yml'))
ENTRIES = [
    (path.parent, name, entry)
    for path in FILES
    for name, entry in yaml.safe_load(path.read_text())['configs'].items()
]
IDS = [name for _, name, _ in ENTRIES]


def lookup(config, path: str):
    """The value at a path of a config, None where there is none.

    Items of a list are found by their type.
    """
    value = config
    for part in path.split('.'):
        if isinstance(value, (list, tuple)):
            value = next((item for item in value if item['type'].split('.')[-1] == part), {})
        else:
            value = (value or {}).get(part)
    return plain(value)


def plain(value):
    """Tuples as lists, whole floats as integers."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and value == int(value):
        return int(value)
    return value


@pytest.mark.parametrize('folder, name, entry', ENTRIES, ids=IDS)
def test_a_config_is_as_published_or_says_why_not(folder, name, entry):
    config = Config.fromfile(folder / f'configs/{name}.py').to_dict()
    differs = entry.get('differs', {})
    readme = ' '.join((folder / 'README.md').read_text().split())
    settings = {k: v for k, v in entry['settings'].items() if k not in differs}
    assert len(settings) > 20
    found = {path: lookup(config, path) for path in settings}
    assert found == {path: plain(v) for path, v in settings.items()}
    for path, difference in differs.items():
        assert lookup(config, path) == plain(difference['ours']), path
        assert difference['ours'] != difference['published']
        assert difference['reason'] and difference['readme'] in readme, path


@pytest.mark.parametrize('folder, name, entry', ENTRIES, ids=IDS)
def test_gpus_and_batch_are_in_the_name_and_scale_the_rate(folder, name, entry):
    config = Config.fromfile(folder / f'configs/{name}.py')
    batch = config.train_dataloader.batch_size
    assert f'_{entry["gpus"]}xb{batch}-' in name
    assert config.auto_scale_lr.base_batch_size == entry['gpus'] * batch


@pytest.mark.parametrize('path', FILES, ids=[p.parent.name for p in FILES])
def test_every_full_size_config_has_an_entry_and_every_entry_a_source(path):
    published = yaml.safe_load(path.read_text())
    entries = {**published['configs'], **published.get('ours', {})}
    configs = {
        config.stem
        for config in (path.parent / 'configs').glob('*.py')
        if '_synthetic' not in config.stem
    }
    assert set(entries) == configs
    for entry in published['configs'].values():
        source, file = entry['source']
        assert len(published['sources'][source]['commit']) == 40
        assert Path(file.split(',')[0]).suffix in ('.py', '.yaml')


def test_a_setting_that_drifts_is_found():
    config = dict(a=dict(b=(1, 2.0)), hooks=[dict(type='x.H', n=1.0)])
    assert lookup(config, 'a.b') == [1, 2]
    assert lookup(config, 'hooks.H.n') == 1
    assert lookup(config, 'a.c.d') is lookup(config, 'hooks.Other.n') is None


@pytest.mark.parametrize('folder, name, entry', ENTRIES, ids=IDS)
def test_the_table_of_models_has_batch_and_parameters(folder, name, entry):
    text = (ROOT / 'docs/models.md').read_text()
    (row,) = (line for line in text.splitlines() if line.startswith((f'| `{name}`',)))
    cells = [cell.strip() for cell in row.strip('|').split('|')]
    batch = name.split(f'_{entry["gpus"]}xb')[1].split('-')[0]
    assert cells[4] == f'{entry["gpus"]} x {batch}'
    models = yaml.safe_load((folder / 'metafile.yml').read_text())['Models']
    (metadata,) = (m['Metadata'] for m in models if m['Name'] == name)
    parameters = metadata.get('Parameters', metadata.get('Parameters (M)'))
    assert cells[1] == str(parameters).rstrip('M')
