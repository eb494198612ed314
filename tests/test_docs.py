"""The pages: each line of their shell blocks is taken by the tool that it names,
and stands below with the test that runs that tool or the reason why none does."""

import argparse
import functools
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from radocc_plugin import cli, doctor

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    *sorted((ROOT / 'docs').glob('*.md')),
    *sorted((ROOT / 'projects').glob('*/README.md')),
    *sorted((ROOT / 'configs').glob('*/README.md')),
]
every_page = pytest.mark.parametrize('page', PAGES, ids=lambda p: str(p.relative_to(ROOT)))

# The tools that pages call, and the test that runs them on data of its own: the
# lines themselves name nuScenes, checkpoints and GPUs, so they are parsed only.
RUN_BY = {
    'analyse_distillation': 'test_tools/test_analyse_distillation.py',
    'benchmark model': 'test_tools/test_benchmark_model.py',
    'benchmark rendering': 'not run: times a machine; its parts are in test_rendering',
    'benchmark evaluation': 'not run: times a machine; its parts are in test_evaluation',
    'cache_teacher': 'test_distillation/test_teacher_cache.py',
    'create_data occ3d-nuscenes': 'test_datasets/test_info_converter.py',
    'create_data occ3d-waymo': 'test_datasets/test_benchmarks.py',
    'create_synthetic': 'test_tools/test_quickstart.py',
    'doctor': 'test_doctor.py',
    'export_onnx': 'test_export.py',
    'generate_segments': 'test_segments/test_generation.py',
    'reproduce_table': 'test_evaluation/test_table.py',
    'reproduce_table quickstart': 'test_tools/test_quickstart.py',
    'test': 'test_tools/test_test_command.py',
    'test predictions': 'test_tools/test_evaluate_predictions.py',
    'train': 'test_tools/test_command_lines.py',
    'visualize keyframe': 'test_tools/test_keyframe.py',
    'visualize predictions': 'test_tools/test_visualize.py',
    'visualize samples': 'test_tools/test_visualize.py',
    'visualize segments': 'test_segments/test_generation.py',
}
# Lines that call no tool of ours: (pattern, what runs it or why nothing does).
OTHERS = [
    (r'make quickstart', 'test_tools/test_quickstart.py'),
    (r'make (test|lint|docs|test-versions)', 'by .ci/run'),
    (r"pip install '?\.", 'test_tools/test_packaging.py'),
    (r'mkdir -p \w+$', 'not run: a folder for downloads'),
    (r'rerun --web-viewer', 'not run: opens a browser'),
]
# Launchers hand these on or take them themselves.
LAUNCHED = re.compile(r'--gpus(=| )\S+')


class Parsed(Exception):
    """The tool has taken the arguments."""


def lines_of(page: Path):
    """The lines of a page's shell blocks, continued ones joined, variables of
    the block filled in."""
    for block in re.findall(
        r'^```(?:bash|shell|sh)\n(.*?)^```', page.read_text('utf-8'), re.DOTALL | re.MULTILINE
    ):
        variables = {}
        for line in block.replace('\\\n', ' ').splitlines():
            for name, value in variables.items():
                line = line.replace(f'$(basename ${name})', Path(value).name)
                line = line.replace(f'${name}', value)
            words = shlex.split(line, comments=True)
            assignment = words and re.fullmatch(r'([A-Z]+)=(.*)', words[0])
            if assignment and len(words) == 1:
                variables[assignment[1]] = assignment[2]
            elif words:
                yield ' '.join(map(shlex.quote, words)), words


def tool_of(words):
    """Name and arguments of the tool that a line calls; None if it calls none."""
    for place, word in enumerate(words):
        path = re.search(r'(?:^|/)tools/((?:\w+/)?\w+)\.py$', word)
        before = words[max(place - 2, 0) : place]
        script = re.search(r'(?:^|/)tools/(?:dist|slurm)_(\w+)\.sh$', word)
        if path:
            return path[1], words[place + 1 :]
        if script:
            # CONFIG GPUS, of a test CHECKPOINT before that number
            number = next(i for i, w in enumerate(words) if i > place and re.fullmatch(r'\d+', w))
            return script[1], words[place + 1 : number] + words[number + 1 :]
        if word == 'radocc' or before == ['-m', 'radocc_plugin']:
            at = place + (word == 'radocc')
            return words[at], words[at + 1 :]
        if word == 'radocc_plugin' and before[-1:] in (['train'], ['test']):
            return before[-1], words[place + 1 :]
        if word == 'radocc_plugin' and before[-1:] == ['run']:
            return words[place + 1], words[place + 2 :]
    return None


@functools.lru_cache(maxsize=None)
def load(name: str):
    spec = importlib.util.spec_from_file_location(
        f'{Path(name).stem}_tool', ROOT / f'tools/{name}.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def parse(monkeypatch):
    """Hands arguments to a tool until its own parser has taken them."""
    real = argparse.ArgumentParser.parse_args

    def parse_args(self, args=None, namespace=None):
        found = real(self, args, namespace)
        if set(vars(found)) != {'command'}:  # that of one which picks a command
            raise Parsed
        return found

    def error(self, message):
        raise ValueError(message)

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_args)
    monkeypatch.setattr(argparse.ArgumentParser, 'error', error)

    def parse(name, words):
        with pytest.raises(Parsed):
            load(name).main(words)

    return parse


def written_out(words):
    """Arguments without the marks of the pages: [optional] and ... for more."""
    words = [re.sub(r'^\[(?=--)|(?<=\w)\]$', '', word) for word in words]
    return [
        word for place, word in enumerate(words) if word != '...' or words[place - 1][:2] == '--'
    ]


@every_page
def test_commands_of_a_page_are_what_their_tools_take(page, parse):
    for line, words in lines_of(page):
        called = tool_of(words)
        if called is None or called[0] in ('doctor', '--help', '--version'):
            continue
        name, words = called
        assert (ROOT / 'tools' / f'{name}.py').is_file(), f'{page.name}: no tool {name}'
        words = shlex.split(LAUNCHED.sub('', ' '.join(map(shlex.quote, words))))
        if '--help' not in words:
            try:
                parse(name, written_out(words))
            except ValueError as problem:
                missing = 'the following arguments are required' in str(problem)
                assert missing and '...' in words, f'{page.name}: {line}\n{problem}'
        for word in words:
            if re.fullmatch(r'(configs|projects|tests)/[^\s$]+', word):
                assert (ROOT / word).exists(), f'{page.name}: no {word}'


def test_arguments_that_a_tool_does_not_take_are_found(parse):
    for name, words in (('train', ['c.py', '--sped', '2']), ('visualize', ['samples', '--out'])):
        with pytest.raises(ValueError, match='unrecognized|expected one argument'):
            parse(name, words)


@every_page
def test_commands_of_a_page_are_run_by_a_test_or_say_why_not(page):
    for line, words in lines_of(page):
        called = tool_of(words)
        if called is None:
            matches = [how for pattern, how in OTHERS if re.match(pattern, line)]
            assert matches, f'{page.name}: nothing is said of {line!r} in tests/test_docs.py'
            continue
        name, words = called
        key = ' '.join((name, *words[:1]))
        assert key in RUN_BY or name in RUN_BY or name in ('--help', '--version'), (
            f'{page.name}: nothing is said of {key!r} in tests/test_docs.py'
        )


@pytest.mark.parametrize('how', sorted({*RUN_BY.values(), *(how for _, how in OTHERS)}))
def test_the_tests_that_run_commands_exist(how):
    if not how.startswith('not run: ') and how != 'by .ci/run':
        assert (ROOT / 'tests' / how).is_file()


def test_there_are_commands_to_check():
    called = [tool_of(words) for page in PAGES for _, words in lines_of(page)]
    found = {name for name, _ in filter(None, called)}
    assert {'train', 'test', 'create_data', 'visualize'} <= found
    assert {key.split()[0] for key in RUN_BY} <= {'doctor', *cli.find_tools()}


@every_page
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
