"""What a wheel holds decides what `mim` finds."""
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def names(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wheel')
    tracked = subprocess.run(['git', 'ls-files'],
                             cwd=ROOT,
                             capture_output=True,
                             text=True,
                             check=True).stdout.split()
    # A copy, so that the build leaves nothing in the checkout.
    source = folder / 'source'
    for name in tracked:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    subprocess.run([
        sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps',
        '--no-build-isolation', '-w', folder, source
    ], check=True)
    wheel, = folder.glob('radocc_plugin-*.whl')
    return zipfile.ZipFile(wheel).namelist()


def test_wheel_holds_what_mim_looks_for(names):
    for name in ('model-index.yml', 'tools/train.py', 'tools/test.py',
                 'configs/_base_/radocc/fusion_teacher_occ3d.py',
                 'configs/published_results.yaml',
                 'projects/BEVDetOcc/metafile.yml',
                 'projects/BEVDetOcc/metafile.yml'):
        assert f'radocc_plugin/.mim/{name}' in names
    suites = {n for n in names if '/.mim/configs/suites/' in n}
    assert suites == {
        f'radocc_plugin/.mim/configs/suites/{path.name}'
        for path in (ROOT / 'configs' / 'suites').glob('*.yml')
    } and suites
    sources = 'radocc_plugin/rendering/backends/cpp_source'
    assert {f'{sources}/{n}' for n in ('module.cpp', 'rays.h', 'exact.h',
                                       'sampled.h')} <= set(names)
    configs = [n for n in names if '/.mim/configs/radocc/' in n]
    assert len([n for n in configs if n.endswith('.py')]) == len(
        list((ROOT / 'configs' / 'radocc').glob('*.py')))


def test_wheel_has_one_top_level_package_and_no_tests(names):
    top = {name.split('/')[0] for name in names}
    assert {t for t in top if not t.endswith('.dist-info')
            } == {'radocc_plugin'}
    assert not [n for n in names if '/tests/' in n or 'conftest' in n]
