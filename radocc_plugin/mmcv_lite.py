"""Lets mmcv-lite serve where mmcv's compiled ops are not called.

``mmcv.ops``, and with it mmdet and mmdet3d, cannot be imported without the
compiled module ``mmcv._ext``, which mmcv-lite lacks. Here is one whose every
op raises when it is called; a compiled one, where it exists, comes first.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

NAME = 'mmcv._ext'
MEND = (
    'install mmcv with its ops in place of mmcv-lite: pip uninstall '
    'mmcv-lite, then mim install "mmcv>=2.0.0rc4,<2.2.0"; in a clone: '
    'make setup MMCV=compiled'
)


class _StandIn(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return ModuleType(spec.name, 'Ops that raise, for mmcv-lite.')

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = _missing_op


class _Finder(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(NAME, _StandIn()) if name == NAME else None


def _missing_op(name: str):
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*args, **kwargs):
        raise RuntimeError(f'the op {name!r} of mmcv is not compiled in this environment; {MEND}')

    return missing


def is_stand_in(module: ModuleType) -> bool:
    """Whether a module ``mmcv._ext`` is the one of this file."""
    return isinstance(getattr(module, '__loader__', None), _StandIn)


def stand_in() -> None:
    """Makes ``mmcv._ext`` importable where there is no compiled one."""
    # At the end: asked only if no file of mmcv's has the name.
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
