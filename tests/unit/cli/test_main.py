import tomllib

import pytest
import torch

import minidisc
from minidisc.cli import main as command
from minidisc.cli.main import main
from minidisc.errors import UserError
from tests.documentation import ROOT


def test_versions_are_told(capsys):
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert minidisc.__version__ == declared
    main(["--version"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"minidisc {declared}"
    assert f"torch {torch.__version__}" in lines


def test_a_terminal_obeys_no_error(monkeypatch, capsys):
    def refuse(*_, **__):
        raise UserError("label 'a\x1b]0;title\x07\x1b[2J' is\n  not übung's.")

    monkeypatch.setattr(command, "app", refuse)
    with pytest.raises(SystemExit):
        main(["evaluate"])
    assert capsys.readouterr().err == "minidisc: label 'a\\x1b]0;title\\x07\\x1b[2J' is not übung's.\n"
