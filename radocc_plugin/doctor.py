"""Checks the installation: ``radocc doctor``.

Prints what was found, what is needed and how to mend it; the exit code is 1
if something required is wrong. It needs nothing but Python itself, since it
must run where packages are missing.
"""

import configparser
import importlib
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

from radocc_plugin import mmcv_lite

OK, WRONG, NOTE = 'ok', 'WRONG', 'note'
HEADER = ('item', 'found', 'needed', 'verdict', 'how to mend')


@dataclass(frozen=True)
class Finding:
    """One line of the report; only ``WRONG`` makes the exit code 1."""

    item: str
    found: str
    needed: str
    verdict: str
    mend: str = ''


@dataclass(frozen=True)
class Requirement:
    """A package and its accepted versions.

    Args:
        package: Distribution name.
        needed: Comma-separated bounds, e.g. ``'>=2.1,<3'``; '' for any.
        extra: The extra of the plugin that brings it; '' for its core, which
            does not work without.
    """

    package: str
    needed: str = ''
    extra: str = ''


# What does not work without a package.
COSTS = {
    'einops': 'the taps that read a student',
    'filelock': 'the compiled renderer',
    'mmengine': 'everything',
    'numba': 'the metrics, the synthetic world',
    'numpy': 'everything',
    'pillow': 'images, pictures',
    'pyyaml': 'suites of runs, published results',
    'rich': 'tables on the screen',
    'setuptools': 'MMEngine, which imports pkg_resources, gone in 82',
    'torch': 'everything; see pytorch.org for your CUDA',
    'mmcv': 'data pipelines, the shipped students and teachers',
    'mmcv-lite': 'the same on a CPU',
    'mmdet': 'the shipped students and teachers',
    'mmdet3d': 'sparse LiDAR encoders, students of mmdet3d',
    'nuscenes-devkit': 'making info files of nuScenes',
    'scikit-image': 'superpixels, connected components of segments',
    'segment-anything': 'segments made by SAM',
    'onnx': 'students as ONNX files',
    'onnxruntime': 'comparing them with the model',
    'rerun-sdk': 'recordings for the rerun viewer',
    'pyarrow': 'recordings for the rerun viewer',
}
# Extras of those who work on the plugin, not with it.
DEVELOPMENT = ('test', 'docs', 'lint')
# Forks that take the folders of the originals, in versions of their own.
FORKS = {'mmengine': 'onedl-mmengine', 'mmcv': 'onedl-mmcv', 'mmdet': 'onedl-mmdet'}
OPENCV = (
    'opencv-python',
    'opencv-python-headless',
    'opencv-contrib-python',
    'opencv-contrib-python-headless',
)


def requirements() -> List[Requirement]:
    """What the plugin declares: setup.cfg of a clone, else its metadata.

    Raises:
        ValueError: If a line names no package.
    """
    parser = _setup_cfg()
    if parser is None:
        lines = metadata.requires('radocc_plugin') or []
    else:
        lines = parser['options']['install_requires'].splitlines()
        for extra, text in parser['options.extras_require'].items():
            lines += [f'{line}; extra == "{extra}"' for line in text.splitlines() if line]
    return [_parse(line) for line in lines if line]


def python_needed() -> str:
    """Bounds of the Python version, from where ``requirements`` stand."""
    parser = _setup_cfg()
    if parser is None:
        return metadata.metadata('radocc_plugin')['Requires-Python']
    return parser['options']['python_requires']


def _setup_cfg() -> Optional[configparser.ConfigParser]:
    """That of a clone; an installation has none."""
    path = Path(__file__).resolve().parents[1] / 'setup.cfg'
    if not path.is_file():
        return None
    parser = configparser.ConfigParser()
    parser.read(path, encoding='utf-8')
    return parser


def _parse(line: str) -> Requirement:
    match = re.match(r'([\w.-]+)\s*([^;]*)', line)
    if match is None:
        raise ValueError(f'a requirement takes a package first, got {line!r}')
    extra = re.search(r'extra\s*==\s*[\'"]([\w-]+)', line)
    return Requirement(match[1], match[2].strip(), extra[1] if extra else '')


def satisfies(version: str, needed: str) -> bool:
    """Whether a version lies within bounds, e.g. ``'>=2.0.0rc4,<2.2.0'``.

    Raises:
        ValueError: If a bound is not ``>=`` or ``<`` and a version.
    """
    for bound in filter(None, needed.split(',')):
        match = re.fullmatch(r'(>=|<)(\S+)', bound.strip())
        if match is None:
            raise ValueError(f'a bound takes >= or < and a version, got {bound!r}')
        at_least = _key(version) >= _key(match[2])
        if at_least != (match[1] == '>='):
            return False
    return True


def _key(version: str) -> Tuple:
    """Sortable form of a version; a pre-release comes before its release."""
    release, pre = re.match(r'(\d+(?:\.\d+)*)\.?((?:a|b|rc|dev)\d*)?', version).groups()
    numbers = [int(n) for n in release.split('.')]
    numbers += [0] * (4 - len(numbers))
    if pre is None:
        return (*numbers, 1)
    digits = re.search(r'\d+', pre)
    return (*numbers, 0, pre.rstrip('0123456789'), int(digits.group()) if digits else 0)


def installed(package: str) -> Optional[str]:
    """Version of a distribution, None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def import_error(module: str) -> Optional[str]:
    """Why a module cannot be imported, in one line; None if it can."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken binary can raise almost anything
        return _one_line(error)
    return None


def _one_line(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'.split('\n')[0]


def check_package(requirement: Requirement) -> Finding:
    """Compares the installed version of a package with what is needed."""
    package, needed = requirement.package, requirement.needed
    version, fork = installed(package), FORKS.get(package)
    shown = needed or 'any version'
    if requirement.extra:
        shown = f'{shown} (extra {requirement.extra})'
    if fork and installed(fork):
        found = f'{fork} {installed(fork)}'
        if version is None:
            return Finding(package, found, shown, OK)
        return Finding(
            package,
            f'{version} and {found}',
            'one of the two',
            WRONG,
            f'they share a folder: pip uninstall -y {package} {fork}, then install one',
        )
    if version is not None and satisfies(version, needed):
        return Finding(package, version, shown, OK)
    mend = f'pip install "{package}{needed}"; not without: {COSTS[package]}'
    wrong = version is not None or not requirement.extra
    return Finding(package, version or 'missing', shown, WRONG if wrong else NOTE, mend)


def check_python() -> Finding:
    """Compares the running Python with what is needed."""
    version, needed = '.'.join(map(str, sys.version_info[:3])), python_needed()
    if satisfies(version, needed):
        return Finding('python', version, needed, OK)
    return Finding('python', version, needed, WRONG, 'use a newer Python')


def check_mmcv(requirement: Requirement) -> Iterator[Finding]:
    """mmcv or mmcv-lite, one of the two, and whether the ops load.

    Args:
        requirement: That of mmcv; mmcv-lite takes the same versions.
    """
    lite = installed('mmcv-lite')
    full = [p for p in ('mmcv', FORKS['mmcv']) if installed(p)]
    if lite and full:
        packages = ' '.join(full)
        yield Finding(
            'mmcv',
            f'{packages} and mmcv-lite',
            'one of the two',
            WRONG,
            f'they share a folder: pip uninstall -y {packages} mmcv-lite, then install one',
        )
        return
    if lite:
        finding = check_package(Requirement('mmcv-lite', requirement.needed, 'lite'))
        yield Finding('mmcv', f'mmcv-lite {lite}', finding.needed, finding.verdict, finding.mend)
        yield Finding(
            'mmcv ops',
            'none (mmcv-lite)',
            'compiled, on a GPU',
            NOTE,
            f'not without: BEVFormer and FB-OCC on a GPU; {mmcv_lite.MEND}',
        )
        return
    yield check_package(requirement)
    if not full:
        return
    try:
        module = importlib.import_module('mmcv._ext')
        error = 'not compiled' if mmcv_lite.is_stand_in(module) else None
    except Exception as problem:  # a broken binary can raise almost anything
        error = _one_line(problem)
    yield Finding(
        'mmcv ops',
        error or 'load',
        'compiled',
        WRONG if error else OK,
        'build mmcv against the installed torch: MMCV_WITH_OPS=1 pip install '
        '--no-build-isolation --no-cache-dir --force-reinstall --no-deps '
        f'"mmcv{requirement.needed}"'
        if error
        else '',
    )


def check_setuptools() -> Finding:
    error = import_error('pkg_resources')
    return Finding(
        'pkg_resources',
        error or 'imports',
        'imports',
        WRONG if error else OK,
        'pip install "setuptools<82"' if error else '',
    )


def check_opencv() -> Finding:
    """All OpenCV packages unpack into one cv2 folder and must agree."""
    found = {p: installed(p) for p in OPENCV if installed(p)}
    text = ', '.join(f'{p} {v}' for p, v in found.items()) or 'missing'
    error = import_error('cv2')
    if len(set(found.values())) > 1:
        error = 'versions differ'
    if error is None:
        return Finding('opencv', text, 'one version', OK)
    packages = ' '.join(f'{p}==4.11.0.86' for p in found or OPENCV[:1])
    remove = f'pip uninstall -y {" ".join(found)}; ' if found else ''
    return Finding(
        'opencv',
        f'{text} ({error})' if found else text,
        'one version',
        WRONG,
        f'{remove}pip install {packages}',
    )


def check_torchvision() -> Finding:
    """MMEngine's Runner imports torchvision if it is installed."""
    version = installed('torchvision')
    needed = 'absent, or imports'
    if version is None:
        return Finding('torchvision', 'absent', needed, OK)
    error = import_error('torchvision')
    if error is None:
        return Finding('torchvision', version, needed, OK)
    return Finding(
        'torchvision',
        f'{version} ({error})',
        needed,
        WRONG,
        'install the one of your torch, or: pip uninstall torchvision',
    )


def check_hardware() -> Iterator[Finding]:
    """CUDA and a compiler, for information."""
    if import_error('torch') is None:
        import torch

        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Finding(
            'CUDA', ', '.join(devices) or 'no GPU: CPU only', 'optional', OK if devices else NOTE
        )
    compiler = next(filter(None, map(shutil.which, ('g++', 'clang++'))), None)
    yield Finding(
        'C++ compiler',
        compiler or 'missing',
        'optional',
        OK if compiler else NOTE,
        ''
        if compiler
        else 'not without: the compiled renderer on a CPU '
        '(torch renders more slowly), building mmcv',
    )


def check_all() -> List[Finding]:
    """Every check, in the order of the report."""
    declared = {r.package: r for r in requirements() if r.extra not in DEVELOPMENT}
    mmcv = declared.pop('mmcv')
    declared.pop('mmcv-lite')  # in the same versions
    return [
        check_python(),
        *map(check_package, declared.values()),
        check_setuptools(),
        *check_mmcv(mmcv),
        check_opencv(),
        check_torchvision(),
        *check_hardware(),
    ]


def show(findings: List[Finding]) -> None:
    """Prints the report, as a rich table where rich is installed."""
    rows = [(f.item, f.found, f.needed, f.verdict, f.mend) for f in findings]
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        for row in (HEADER, *rows):
            print('{:18} {:24} {:24} {:8} {}'.format(*row))
        return
    styles = {OK: '', WRONG: 'bold red', NOTE: 'yellow'}
    table = Table(title='RadOcc plugin: installation')
    for name in HEADER:
        table.add_column(name, overflow='fold')
    for row in rows:
        # Text, since errors may hold brackets that rich takes for markup
        table.add_row(*map(Text, row), style=styles[row[3]])
    Console().print(table)


def main() -> int:
    findings = check_all()
    show(findings)
    wrong = [f.item for f in findings if f.verdict == WRONG]
    print(f'wrong: {", ".join(wrong)}' if wrong else 'ready')
    return int(bool(wrong))


if __name__ == '__main__':
    sys.exit(main())
