import pytest

from minidisc import runs
from minidisc.config import CompareSettings
from minidisc.errors import UserError
from minidisc.runs import check_folder, open_run, trained_with


def test_a_start_that_was_cut_short_can_be_repeated(tmp_path):
    (tmp_path / ".run.yaml.tmp").write_text("half")
    (tmp_path / ".text.tmp").mkdir()
    check_folder(tmp_path)
    (tmp_path / "notes.txt").write_text("of somebody")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        check_folder(tmp_path)


def test_a_run_that_goes_on_with_other_versions_says_so(tmp_path, monkeypatch):
    folder = tmp_path / "run"

    def goes_on(torch, more=True, minidisc="1"):
        monkeypatch.setattr(runs, "versions", lambda: {"minidisc": minidisc, "torch": torch})
        open_run(CompareSettings(teacher="t", output_dir=str(folder)), {}, True, free=("methods",))
        used, warnings = trained_with(folder, more)
        return used["torch"], warnings

    assert goes_on("2.0") == ("2.0", [])
    assert goes_on("2.0") == ("2.0", [])
    # Where nothing is trained, nothing has been made with those of now.
    assert goes_on("2.1", more=False) == ("2.0", [])
    end = "; weights may differ from an uninterrupted run's."
    first = f"begun with torch 2.0, goes on with torch 2.1{end}"
    assert goes_on("2.1") == ("2.1", [first])
    assert goes_on("2.1") == ("2.1", [first])
    back = f"begun with minidisc 1, torch 2.1, goes on with minidisc 2, torch 2.0{end}"
    assert goes_on("2.0", minidisc="2") == ("2.0", [first, back])
