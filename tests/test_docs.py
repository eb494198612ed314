"""The pages: their commands have the options and files that they name."""

import re
import shlex
from pathlib import Path

import pytest

from radocc_plugin import cli, doctor

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / 'README.md',
    *sorted((ROOT / 'docs').glob('*.md')),
    *sorted((ROOT / 'projects').glob('*/README.md')),
    *sorted((ROOT / 'configs').glob('*/README.md')),
]
TOOLS = cli.find_tools()
# Options of torchrun, mim and srun stand before the tool or are passed on.
OTHERS = {'--gpus', '--help'}
# Commands of tools that are not in a table of theirs.
MODULES = dict(quickstart='quickstart', predictions='score_predictions')


def commands(page: Path) -> list:
    """Lines of the page's shell blocks that run a tool: (tool, words)."""
    found = []
    for block in re.findall(
        r'^```(?:bash|shell|sh)\n(.*?)^```', page.read_text('utf-8'), re.DOTALL | re.MULTILINE
    ):
        for line in block.replace('\\\n', ' ').splitlines():
            words = shlex.split(line, comments=True)
            for place, word in enumerate(words):
                path = re.search(r'(?:^|/)tools/((?:\w+/)?\w+)\.py$', word)
                name = path and path[1]
                if word == 'radocc' or words[place - 1 : place + 1] == ['-m', 'radocc_plugin']:
                    name = words[place + 1]
                elif words[place - 1 : place + 1] == ['train', 'radocc_plugin']:
                    name = 'train'
                elif words[place - 1 : place + 1] == ['run', 'radocc_plugin']:
                    name = words[place + 1]
                if name:
                    found.append((name, words[place + 1 :]))
                    break
    return found


@pytest.mark.parametrize('page', PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_of_a_page_exist_with_their_options_and_configs(page):
    for name, words in commands(page):
        if name in ('doctor', '--help', '--version'):
            continue
        tool = ROOT / 'tools' / f'{name}.py'
        assert tool.is_file(), f'{page.name}: no tool {name}'
        source = tool.read_text('utf-8')
        words = words[words[:1] == [name] :]
        command = re.search(rf"\b{words[0]}='(\w+)'", source) if words else None
        if command or words[:1] in (['quickstart'], ['predictions']):
            module = command[1] if command else MODULES[words[0]]
            source = (ROOT / f'radocc_plugin/commands/{module}.py').read_text('utf-8')
        for word in words:
            option = word.split('=')[0]
            if option.startswith('--') and option not in OTHERS:
                assert f"'{option}'" in source, f'{page.name}: {name} takes no {option}'
            if re.fullmatch(r'(configs|projects|tests)/[^\s$]+', word):
                assert (ROOT / word).exists(), f'{page.name}: no {word}'


def test_there_are_commands_to_check():
    found = {name for page in PAGES for name, _ in commands(page)}
    assert {'train', 'test', 'create_data', 'visualize'} <= found
    assert found - {'doctor', '--help'} <= {
        *TOOLS,
        *(f'{p.parent.name}/{p.stem}' for p in (ROOT / 'tools').glob('*/*.py')),
    }


@pytest.mark.parametrize('page', PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_of_a_page_lead_to_files(page):
    text = re.sub(r'^```.*?^```', '', page.read_text('utf-8'), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r'\]\(([^)\s]+)\)', text):
        if not re.match(r'(https?:|#|mailto:)', target):
            path = page.parent / target.split('#')[0]
            assert path.exists(), f'{page.name} links to {target}'


def test_extras_that_pages_name_exist():
    extras = {r.extra for r in doctor.requirements()}
    for page in PAGES:
        for names in re.findall(r"pip install '?\.\[([\w,-]+)\]", page.read_text('utf-8')):
            assert set(names.split(',')) <= extras, f'{page.name}: {names}'
