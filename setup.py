"""Packs configs, projects and tools where MIM looks for them."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PACKED = ('configs', 'projects', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """Copies the MIM folders into the wheel.

    An editable installation has no such copy: its tools find the folders of
    the clone.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
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
                    ignore=shutil.ignore_patterns('__pycache__', 'tests', 'conftest.py'),
                )
            else:
                shutil.copy2(source, target)


setup(cmdclass=dict(build_py=BuildWithMim))
