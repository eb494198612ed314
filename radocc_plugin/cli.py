"""The command ``radocc``: doctor, and every tool by its name.

    radocc doctor
    radocc train CONFIG --work-dir DIR

A tool is a file ``tools/NAME.py``; a clone has them beside the package, a
wheel in ``radocc_plugin/.mim``. ``torchrun -m radocc_plugin train ...`` starts
several processes.
"""

import ast
import difflib
import runpy
import sys
from pathlib import Path
from typing import Dict, List, Optional

from radocc_plugin import doctor
from radocc_plugin.config_file import shipped_root
from radocc_plugin.version import __version__


def find_tools() -> Dict[str, Path]:
    """The tools that are there, by name.

    Raises:
        FileNotFoundError: If the package was installed without them.
    """
    folder = shipped_root() / 'tools'
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder} is missing; install radocc_plugin again')
    return {path.stem: path for path in sorted(folder.glob('*.py'))}


def describe(tools: Dict[str, Path]) -> str:
    """What ``radocc --help`` prints: a line a tool, without importing it."""
    lines = dict(doctor='Checks the installation.')
    for name, path in tools.items():
        text = ast.get_docstring(ast.parse(path.read_text('utf-8'))) or ''
        lines[name] = text.split('\n')[0]
    width = max(map(len, lines))
    return '\n'.join(
        ['usage: radocc COMMAND ..., or radocc COMMAND --help', '']
        + [f'  {name:{width}}  {line}' for name, line in lines.items()]
    )


def main(argv: Optional[List[str]] = None) -> int:
    """Runs ``radocc`` with these arguments, default those of the process."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    tools = find_tools()
    name = arguments[0] if arguments else '--help'
    if name in ('-h', '--help'):
        print(describe(tools))
        return 0
    if name == '--version':
        print(__version__)
        return 0
    if name == 'doctor':
        return doctor.main()
    if name not in tools:
        close = difflib.get_close_matches(name, ['doctor', *tools], n=1)
        hint = f'; did you mean {close[0]}?' if close else ''
        print(f'radocc takes one of doctor, {", ".join(tools)}, got {name}{hint}', file=sys.stderr)
        return 2
    sys.argv = [str(tools[name]), *arguments[1:]]
    runpy.run_path(sys.argv[0], run_name='__main__')
    return 0


if __name__ == '__main__':
    sys.exit(main())
