import tomllib

import pytest
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


def test_names_that_the_locale_cannot_decode_are_refused(capsys):
    name = "modèle".encode().decode("ascii", "surrogateescape")  # as Python gets it where the locale is C
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "--model", name, "--validation-file", "modèle.csv"])
    told = capsys.readouterr().err
    assert told.startswith(r"minidisc: 'mod\udcc3\udca8le' is not text in this locale; set PYTHONUTF8=1")
    # Letters beyond ASCII are text where they could be decoded.
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "--modèle"])
    assert "No such option: --modèle" in capsys.readouterr().err
