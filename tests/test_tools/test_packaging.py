"""What a wheel and an sdist hold, and what an installation finds."""

import ast
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.metadata import Metadata

import radocc_plugin

ROOT = Path(__file__).resolve().parents[2]
CONFIG = 'projects/BEVDetOcc/configs/bevdet-occ_tiny_1xb1-3e_synthetic.py'


def run(*command, cwd=None):
    result = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A copy of what git tracks: a build leaves nothing in the checkout."""
    folder = tmp_path_factory.mktemp('packaging') / 'source'
    for name in run('git', 'ls-files', cwd=ROOT).split():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    return folder


def build(kind, source, folder):
    """Runs a hook of our build backend, as pip and build do."""
    run(
        sys.executable,
        '-W',
        'ignore',
        '-c',
        f'import setuptools.build_meta as b, sys; b.build_{kind}(sys.argv[1])',
        folder,
        cwd=source,
    )


@pytest.fixture(scope='module')
def sdist(source):
    """Path of the archive."""
    build('sdist', source, source.parent)
    (path,) = source.parent.glob('*.tar.gz')
    return path


@pytest.fixture(scope='module')
def wheel(sdist, tmp_path_factory):
    """Path of the wheel, built from nothing but the archive."""
    folder = tmp_path_factory.mktemp('wheel')
    with tarfile.open(sdist) as archive:
        archive.extractall(folder)
    (unpacked,) = folder.iterdir()
    build('wheel', unpacked, folder)
    (path,) = folder.glob('radocc_plugin-*.whl')
    return path


@pytest.fixture(scope='module')
def names(wheel):
    return zipfile.ZipFile(wheel).namelist()


def install(folder, *what):
    """A Python that has the packages of ours but, of us, only ``what``."""
    run(sys.executable, '-m', 'venv', '--without-pip', folder)
    python = folder / 'bin' / 'python'
    site = run(python, '-c', 'import site; print(site.getsitepackages()[0])')
    # As a path alone: an editable installation in it is not seen.
    (Path(site.strip()) / 'others.pth').write_text(f'{Path(pytest.__file__).parents[1]}\n')
    run(
        sys.executable,
        '-m',
        'pip',
        '--python',
        python,
        'install',
        '-q',
        '--no-deps',
        '--no-compile',
        '--no-build-isolation',
        '--force-reinstall',
        *what,
    )
    return python


@pytest.fixture(scope='module')
def from_wheel(wheel, tmp_path_factory):
    return install(tmp_path_factory.mktemp('from_wheel'), wheel)


@pytest.fixture(scope='module')
def editable(source, tmp_path_factory):
    return install(tmp_path_factory.mktemp('editable'), '-e', source)


def test_wheel_holds_what_mim_looks_for(names):
    for name in (
        'model-index.yml',
        'tools/train.py',
        'tools/test.py',
        'configs/_base_/radocc/fusion_teacher_occ3d.py',
        'configs/published_results.yaml',
        'projects/BEVDetOcc/metafile.yml',
    ):
        assert f'radocc_plugin/.mim/{name}' in names
    suites = {n for n in names if '/.mim/configs/suites/' in n}
    assert (
        suites
        == {
            f'radocc_plugin/.mim/configs/suites/{path.name}'
            for path in (ROOT / 'configs' / 'suites').glob('*.yml')
        }
        and suites
    )
    sources = 'radocc_plugin/rendering/backends/cpp_source'
    assert {f'{sources}/{path.name}' for path in (ROOT / sources).iterdir()} <= set(names)
    configs = [n for n in names if '/.mim/configs/radocc/' in n]
    assert len([n for n in configs if n.endswith('.py')]) == len(
        list((ROOT / 'configs' / 'radocc').glob('*.py'))
    )


def test_wheel_has_one_top_level_package_and_no_tests(names):
    top = {name.split('/')[0] for name in names}
    assert {t for t in top if not t.endswith('.dist-info')} == {'radocc_plugin'}
    assert not [n for n in names if '/tests/' in n or 'conftest' in n]


def test_wheel_and_sdist_hold_every_module_and_type_marker(names, sdist):
    modules = {
        str(p.relative_to(ROOT))
        for p in (ROOT / 'radocc_plugin').rglob('*.py')
        if '.mim' not in p.parts
    }
    assert modules | {'radocc_plugin/py.typed'} <= set(names)
    with tarfile.open(sdist) as archive:
        packed = {n.split('/', 1)[1] for n in archive.getnames() if '/' in n}
    assert (
        modules
        | {
            'radocc_plugin/py.typed',
            'setup.cfg',
            'setup.py',
            'pyproject.toml',
            'LICENSE',
            'README.md',
        }
        <= packed
    )


def test_metadata_are_what_an_index_accepts(wheel, sdist):
    """As ``twine check``: valid fields, a description that renders."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith('/METADATA')]
        of_wheel = archive.read(name)
    with tarfile.open(sdist) as archive:
        (name,) = [n for n in archive.getnames() if n.count('/') == 1 and n.endswith('/PKG-INFO')]
        of_sdist = archive.extractfile(name).read()
    for content in (of_wheel, of_sdist):
        data = Metadata.from_email(content, validate=True)
        assert data.name == 'radocc_plugin'
        assert str(data.version) == radocc_plugin.__version__
        assert data.description_content_type == 'text/markdown'
        assert data.description.startswith('# RadOcc plugin')
        assert {'students', 'teachers', 'data', 'sam', 'viz', 'test'} <= set(data.provides_extra)


def test_the_doctor_reads_the_same_from_a_clone_and_an_installation(from_wheel, tmp_path):
    code = (
        'from radocc_plugin.doctor import python_needed, requirements; print(python_needed()); '
        'print(sorted((r.package.lower(), sorted(r.needed.split(",")), '
        'r.extra) for r in requirements()))'
    )
    of_clone = run(sys.executable, '-c', code, cwd=ROOT)
    assert run(from_wheel, '-c', code, cwd=tmp_path) == of_clone


def test_the_version_stands_in_one_place():
    file = ROOT / 'radocc_plugin' / 'version.py'
    (assign,) = ast.parse(file.read_text()).body
    assert assign.value.value == radocc_plugin.__version__
    parser = ConfigParser()
    parser.read(ROOT / 'setup.cfg')
    assert parser['metadata']['version'] == ('attr: radocc_plugin.version.__version__')


def test_mim_finds_the_tools_of_an_installation(from_wheel, tmp_path):
    pytest.importorskip('mim')
    result = subprocess.run(
        [from_wheel, '-W', 'ignore', '-m', 'mim', 'run', 'radocc_plugin', 'train', 'nowhere.py'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert 'config takes a config file' in result.stderr + result.stdout


@pytest.mark.parametrize('kind', ['from_wheel', 'editable'])
def test_radocc_finds_tools_and_configs_from_any_folder(kind, request, tmp_path):
    python = request.getfixturevalue(kind)
    radocc = python.with_name('radocc')
    where = run(python, '-c', 'import radocc_plugin as r; print(r.__file__)', cwd=tmp_path)
    assert not Path(where.strip()).is_relative_to(ROOT)
    assert '  train ' in run(radocc, '--help', cwd=tmp_path)
    result = subprocess.run(
        [radocc, 'train', CONFIG, '--cfg-options', 'model.type=radocc_plugin.NoSuchModel'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    # The config was found and read; it is the model that stops it.
    assert 'NoSuchModel is not in' in result.stderr, result.stderr[-2000:]
