"""The command ``radocc``."""

import sys
from pathlib import Path

import pytest

from radocc_plugin import cli, doctor
from radocc_plugin.version import __version__

TOOLS = Path(__file__).resolve().parents[1] / 'tools'


def test_help_has_a_line_for_every_tool(capsys):
    assert cli.main(['--help']) == cli.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for path in TOOLS.glob('*.py'):
        (line,) = {line for line in lines if line.split()[:1] == [path.stem]}
        assert len(line.split()) > 3, f'{path} has no docstring'


def test_a_tool_gets_the_arguments_and_runs_as_main(tmp_path, monkeypatch, capsys):
    tool = tmp_path / 'greet.py'
    tool.write_text(
        '"""Greets."""\nimport sys\n'
        'if __name__ == "__main__":\n'
        '    print(sys.argv[1:])\n    sys.exit(3)\n'
    )
    monkeypatch.setattr(cli, 'find_tools', lambda: dict(greet=tool))
    monkeypatch.setattr(sys, 'argv', ['radocc', 'greet', '--loud', 'you'])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 3
    assert capsys.readouterr().out == "['--loud', 'you']\n"


def test_doctor_and_version(monkeypatch, capsys):
    monkeypatch.setattr(doctor, 'main', lambda: 7)
    assert cli.main(['doctor']) == 7
    assert cli.main(['--version']) == 0
    assert capsys.readouterr().out == f'{__version__}\n'


def test_an_unknown_command_names_those_there_are(capsys):
    assert cli.main(['trian']) == 2
    error = capsys.readouterr().err
    assert 'got trian; did you mean train?' in error and 'doctor' in error
