"""Packs configs, projects and tools where MIM looks for them."""
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.develop import develop

ROOT = Path(__file__).resolve().parent
PACKED = ('configs', 'projects', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """Copies the MIM folders into the wheel."""

    def run(self) -> None:
        super().run()
        if getattr(self, 'editable_mode', False):
            return
        target = Path(self.build_lib) / 'radocc_plugin' / '.mim'
        target.mkdir(parents=True, exist_ok=True)
        for name in PACKED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source,
                    target / name,
                    dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns('__pycache__', 'tests',
                                                  'conftest.py'))
            else:
                shutil.copy2(source, target)


class DevelopWithMim(develop):
    """Links the MIM folders of an editable install."""

    def run(self) -> None:
        super().run()
        target = ROOT / 'radocc_plugin' / '.mim'
        target.mkdir(exist_ok=True)
        for name in PACKED:
            link = target / name
            if not link.is_symlink():
                link.symlink_to(Path('..') / '..' / name)


setup(cmdclass=dict(build_py=BuildWithMim, develop=DevelopWithMim))
