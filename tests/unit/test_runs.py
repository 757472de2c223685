import pytest

from minidisc.errors import UserError
from minidisc.runs import check_folder


def test_a_start_that_was_cut_short_can_be_repeated(tmp_path):
    (tmp_path / ".run.yaml.tmp").write_text("half")
    (tmp_path / ".text.tmp").mkdir()
    check_folder(tmp_path)
    (tmp_path / "notes.txt").write_text("of somebody")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        check_folder(tmp_path)
