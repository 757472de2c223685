import itertools
import os
import shutil
from contextlib import nullcontext

import pytest
import yaml

from minidisc import ranks, runs
from minidisc.config import CompareSettings, CompressSettings, FinetuneSettings
from minidisc.errors import UserError
from minidisc.runs import (
    check_folder,
    check_new,
    check_shared,
    in_use,
    open_run,
    read_config,
    trained_with,
    training_folder,
)
from minidisc.values import settings_from


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


@pytest.mark.parametrize("kind", [CompressSettings, CompareSettings])
@pytest.mark.parametrize("put", [shutil.move, shutil.copytree])
def test_a_run_whose_file_is_given_is_the_one_in_that_folder(tmp_path, monkeypatch, kind, put):
    monkeypatch.chdir(tmp_path)
    open_run(kind(teacher="t", task="glue/rte", output_dir="old"), {}, resume=False)
    put("old", "new")
    again = settings_from(kind, read_config(tmp_path / "new" / "run.yaml"))
    assert again.output_dir == str(tmp_path / "new")
    assert open_run(again, {}, resume=True) == tmp_path / "new"


def test_a_fine_tuning_whose_file_is_given_is_the_one_beside_its_model(tmp_path, monkeypatch):
    (tmp_path / "old").mkdir()
    monkeypatch.chdir(tmp_path / "old")
    asked = FinetuneSettings(model="m", task="glue/rte", output_dir="teacher")
    file = open_run(asked, {}, resume=False, folder=training_folder(tmp_path / "old" / "teacher")) / "run.yaml"
    assert yaml.safe_load(file.read_text())["settings"]["output_dir"] == "teacher"
    with pytest.raises(UserError, match="learning_rate") as caught:
        changed = FinetuneSettings(model="m", task="glue/rte", output_dir="teacher", learning_rate=1.0)
        open_run(changed, {}, resume=True, folder=file.parent)
    assert "--config RUN/run.yaml" in str(caught.value)
    for parent in ("old", "new"):
        (tmp_path / "old").rename(tmp_path / parent)
        work = tmp_path / parent / ".teacher.training"
        again = settings_from(FinetuneSettings, read_config(work / "run.yaml"))
        assert training_folder(tmp_path / parent / again.output_dir) == work


def test_a_file_of_settings_says_where_results_go(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("settings: {output_dir: there}\n")
    assert read_config(file) == {"output_dir": "there"}
    # Copied out of a run, to repeat it.
    other = tmp_path / "mine.yaml"
    other.write_text("settings: {output_dir: there}\nfingerprints: {}\n")
    assert read_config(other) == {"output_dir": "there"}


@pytest.mark.parametrize(
    "text",
    [
        "seed: 2024-13-45",
        "seed: 0x_",
        "seed: " + "9" * 5000,
        "seed: " + "[" * 3000,
        "seed: !!bool x",
        "seed: !!int ''",
    ],
    ids=itertools.count(),
)
def test_a_file_that_the_parser_stumbles_over_is_no_mapping(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=r"mine\.yaml is not a YAML mapping of settings"):
        read_config(tmp_path / "mine.yaml")


@pytest.fixture
def second_process(monkeypatch):
    """This one is rank 1; rank 0 has written what the test puts into the folder, and says that it is ``token``."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "by_zero", lambda make: "token")
    monkeypatch.setattr(ranks, "zero_first", nullcontext)
    monkeypatch.setattr(runs, "_LATE", 0)


def test_ranks_other_than_0_make_no_run(second_process, tmp_path):
    settings = CompressSettings(teacher="teacher", output_dir=str(tmp_path / "run"))
    with pytest.raises(UserError, match="is not the folder of rank 0"):
        open_run(settings, {}, resume=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("found", [None, "of another run"])
def test_a_folder_of_another_machine_is_refused(second_process, tmp_path, found):
    if found:
        (tmp_path / ".shared").write_text(found)
    with pytest.raises(UserError, match="is not the folder of rank 0"):
        check_shared(tmp_path)


def test_a_folder_that_all_share(second_process, monkeypatch, tmp_path):
    (tmp_path / ".shared").write_text("token")
    check_shared(tmp_path)
    # Rank 0 itself leaves nothing behind.
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(ranks, "by_zero", lambda make: make())
    check_shared(tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_file_that_is_shown_late_is_waited_for(second_process, monkeypatch, tmp_path):
    settings = CompressSettings(teacher="teacher", output_dir=str(tmp_path / "run"))
    monkeypatch.setattr(runs, "_LATE", 9)

    def sleep(seconds):
        monkeypatch.setenv("RANK", "0")
        open_run(settings, {}, resume=False)
        monkeypatch.setenv("RANK", "1")

    monkeypatch.setattr(runs.time, "sleep", sleep)
    assert open_run(settings, {}, resume=True) == tmp_path / "run"


@pytest.mark.parametrize("trap", ["link", "nowhere", "folder", "pipe"])
def test_a_lock_that_is_no_file_is_left_alone(tmp_path, trap):
    (tmp_path / "run").mkdir()
    lock, file = tmp_path / "run" / ".lock", tmp_path / "precious"
    if trap == "link":
        file.write_text("precious")
    {
        "link": lambda: lock.symlink_to(file),
        "nowhere": lambda: lock.symlink_to(file),
        "folder": lock.mkdir,
        "pipe": lambda: os.mkfifo(lock),
    }[trap]()
    with pytest.raises(UserError, match=r"\.lock is no file of minidisc's"), in_use(tmp_path / "run"):
        pass
    assert (file.read_text() if file.exists() else None) == ("precious" if trap == "link" else None)


def test_a_lock_is_written_anew_and_goes(tmp_path):
    (tmp_path / ".lock").write_text("12345678901234567890")
    with in_use(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())
    assert not (tmp_path / ".lock").exists()


def test_a_folder_that_leads_to_itself(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for check in (check_folder, check_new, training_folder):
        with pytest.raises(UserError, match="is a link that leads back to itself"):
            check(tmp_path / "loop")
