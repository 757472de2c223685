import tomllib

import torch

import minidisc
from minidisc.cli.main import main
from tests.documentation import ROOT


def test_versions_are_told(capsys):
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert minidisc.__version__ == declared
    main(["--version"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"minidisc {declared}"
    assert f"torch {torch.__version__}" in lines
