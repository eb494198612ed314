"""The public API: what ``public_api.json`` lists stays as it is listed.

    python tests/test_public_api.py     # writes what is there now

New names, and new arguments with a default, may be missing from the list;
with the next writing they are promised, too. What is listed goes or changes
only by way of a deprecation, see CONTRIBUTING.md.
"""

import importlib
import inspect
import json
import re
from pathlib import Path

import pytest

PACKAGES = (
    'datasets',
    'distillation',
    'engine',
    'evaluation',
    'geometry',
    'losses',
    'rendering',
    'segments',
    'structures',
    'visualization',
)
LIST = Path(__file__).with_name('public_api.json')


def signature(member) -> list:
    """Parameters with their defaults, without types, which say them anew."""
    parameters = inspect.signature(member).parameters.values()
    # A function as default has another address in every process.
    return [re.sub(' at 0x[0-9a-f]+', '', str(p.replace(annotation=p.empty))) for p in parameters]


def still_holds(listed: list, found: list) -> bool:
    """Whether calls by the listed parameters still mean the same."""
    rest = iter(found)
    in_order = all(parameter in rest for parameter in listed)
    new = set(found) - set(listed)
    return in_order and all('=' in p or p.startswith('*') for p in new)


def public_api(package: str) -> dict:
    """Signatures of a package's names, and of its classes' own methods."""
    module = importlib.import_module(f'radocc_plugin.{package}')
    api = {}
    for name in module.__all__:
        member = getattr(module, name)
        if not callable(member):
            api[name] = []
            continue
        api[name] = signature(member)
        if inspect.isclass(member):
            for attribute, value in vars(member).items():
                value = getattr(value, '__func__', value)
                if not attribute.startswith('_') and inspect.isfunction(value):
                    api[f'{name}.{attribute}'] = signature(value)
    return dict(sorted(api.items()))


@pytest.mark.parametrize('package', PACKAGES)
def test_what_is_listed_stays(package):
    listed = json.loads(LIST.read_text())[package]
    found = public_api(package)
    gone = sorted(set(listed) - set(found))
    assert not gone, f'gone from radocc_plugin.{package}; see {LIST.name}'
    changed = {
        name: (parameters, found[name])
        for name, parameters in listed.items()
        if not still_holds(parameters, found[name])
    }
    assert not changed, f'(listed, found) in radocc_plugin.{package}'


@pytest.mark.parametrize(
    'found,holds',
    [
        (['a', 'b=1'], True),
        (['a', 'b=1', 'c=2'], True),
        (['a', 'c=2', 'b=1', '**kwargs'], True),
        (['a', 'b=2'], False),
        (['a', 'b=1', 'c'], False),
        (['b=1', 'a'], False),
        (['a'], False),
    ],
)
def test_only_arguments_with_a_default_may_come(found, holds):
    assert still_holds(['a', 'b=1'], found) is holds


def test_every_listed_package_says_what_is_public():
    for package in PACKAGES:
        module = importlib.import_module(f'radocc_plugin.{package}')
        assert sorted(set(module.__all__)) == sorted(module.__all__)
        assert not [n for n in module.__all__ if n.startswith('_')]


if __name__ == '__main__':
    api = {package: public_api(package) for package in PACKAGES}
    # a line a name
    LIST.write_text(
        '{{\n{}\n}}\n'.format(
            ',\n'.join(
                ' {}: {{\n{}\n }}'.format(
                    json.dumps(package),
                    ',\n'.join(
                        f'  {json.dumps(name)}: {json.dumps(parameters)}'
                        for name, parameters in names.items()
                    ),
                )
                for package, names in api.items()
            )
        )
    )
    print(f'{sum(map(len, api.values()))} names in {LIST}')
