import errno
import json
import os
import shutil

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from minidisc.errors import UserError
from minidisc.files import check_saved, damage_named, new_file, new_folder, read_json, write_json


def contents(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("old", [None, "old"])
def test_new_file(tmp_path, old):
    path = tmp_path / "deep" / "file.txt"
    if old is not None:
        path.parent.mkdir()
        path.write_text(old)
    with new_file(path) as temporary:
        temporary.write_text("new")
        assert contents(tmp_path).get("deep/file.txt") == old
    assert contents(tmp_path) == {"deep/file.txt": "new"}


@pytest.mark.parametrize("old", [None, "old"])
def test_a_failed_file_leaves_the_old_one(tmp_path, old):
    path = tmp_path / "file.txt"
    if old is not None:
        path.write_text(old)

    def fail():
        with new_file(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fail()
        assert contents(tmp_path) == ({} if old is None else {"file.txt": "old"})
    # Nor does what a kill leaves stand in the way of the next attempt.
    (tmp_path / ".file.txt.tmp").write_text("half")
    with new_file(path) as temporary:
        temporary.write_text("new")
    assert contents(tmp_path) == {"file.txt": "new"}


@pytest.mark.parametrize("old", [False, True])
def test_new_folder(tmp_path, old):
    path = tmp_path / "deep" / "folder"
    if old:
        path.mkdir(parents=True)
        (path / "a").write_text("old a")
        (path / "b").write_text("old b")
    with new_folder(path, replaces=old) as temporary:
        (temporary / "a").write_text("new a")
        (temporary / "sub").mkdir()
        (temporary / "sub" / "c").write_text("new c")
        assert path.exists() == old
    assert contents(tmp_path) == {"deep/folder/a": "new a", "deep/folder/sub/c": "new c"}


@pytest.mark.parametrize("folder", [False, True])
def test_what_was_put_in_a_new_folders_place_meanwhile_is_left_alone(tmp_path, folder):
    path, theirs = tmp_path / "name", tmp_path / "name" / "notes.txt" if folder else tmp_path / "name"
    words = r"name was made or filled .* is in .*/\.name\.tmp; move"
    with pytest.raises(UserError, match=words) as caught, new_folder(path) as temporary:
        (temporary / "a").write_text("hours of work")
        theirs.parent.mkdir(exist_ok=True)
        theirs.write_text("days of work")
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == {str(theirs.relative_to(tmp_path)): "days of work", ".name.tmp/a": "hours of work"}


def test_a_new_folder_takes_an_empty_ones_place(tmp_path):
    with new_folder(tmp_path / "folder") as temporary:
        (tmp_path / "folder").mkdir()
        (temporary / "a").write_text("new a")
    assert contents(tmp_path) == {"folder/a": "new a"}


@pytest.mark.parametrize("there", [False, True])
def test_a_new_folder_behind_a_link(tmp_path, there):
    (tmp_path / "disk").mkdir()
    if there:
        (tmp_path / "disk" / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "real")
    with new_folder(tmp_path / "link") as temporary:
        # Renaming works within a disk alone.
        assert temporary.parent == tmp_path / "disk"
        (temporary / "a").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "disk") == {"real/a": "new"}


def test_a_link_gives_way_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis").write_text("three years")
    (tmp_path / "folder").symlink_to(tmp_path / "home")
    with new_folder(tmp_path / "folder", replaces=True) as temporary:
        (temporary / "a").write_text("new")
    assert not (tmp_path / "folder").is_symlink()
    assert contents(tmp_path) == {"folder/a": "new", "home/thesis": "three years"}


@pytest.mark.parametrize("old", [False, True])
def test_a_failed_folder_leaves_the_old_one(tmp_path, old):
    path = tmp_path / "folder"
    if old:
        path.mkdir()
        (path / "a").write_text("old a")

    def fail():
        with new_folder(path) as temporary:
            (temporary / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.exists() == old
    assert not old or contents(path) == {"a": "old a"}
    with new_folder(path, replaces=True) as temporary:
        assert not list(temporary.iterdir())
        (temporary / "a").write_text("new a")
    assert contents(tmp_path) == {"folder/a": "new a"}


def test_json(tmp_path):
    # Of a file name that is no Unicode Python makes half a pair.
    value = {"a": [1, 2.5, None, True], "name": "λ-tradeoff", "file": os.fsdecode(b"donn\xe9es.csv")}
    write_json(tmp_path / "sub" / "x.json", value)
    assert read_json(tmp_path / "sub" / "x.json") == value
    text = (tmp_path / "sub" / "x.json").read_bytes().decode("utf-8")
    assert "λ" in text
    assert text.endswith("}\n")
    assert json.loads(text) == value


def test_json_that_cannot_be_written_leaves_the_old_one(tmp_path):
    write_json(tmp_path / "x.json", [1])
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", [object()])
    assert read_json(tmp_path / "x.json") == [1]


STOPPED = "[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"


@pytest.mark.parametrize(
    ("error", "free", "code"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 10**9, errno.ENOSPC),
        (SafetensorError("I/O error: No space left on device (os error 28)"), 10**9, errno.ENOSPC),
        (SafetensorError(f"I/O error: {os.strerror(errno.EDQUOT)} (os error 122)"), 10**9, errno.EDQUOT),
        (RuntimeError(STOPPED), 4096, errno.ENOSPC),
        (RuntimeError(STOPPED), 10**9, None),
        (RuntimeError("unexpected shape"), 0, None),
        (OSError(errno.EIO, "input/output error"), 0, None),
    ],
)
@pytest.mark.parametrize("block", [new_file, new_folder])
def test_a_full_disk_is_the_systems_own_error(tmp_path, monkeypatch, block, error, free, code):
    """The messages are those that a tmpfs of 200 KB gave."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - free, free))
    with pytest.raises(OSError if code else type(error)) as caught, block(tmp_path / "name"):
        raise error
    if code:
        assert (caught.value.errno, caught.value.filename) == (code, str(tmp_path))
    else:
        assert caught.value is error


def read_weights(file, folder):
    with damage_named(file, folder):
        load_file(file)


@pytest.mark.parametrize("left", ["half", "zeros", "nothing"])
@pytest.mark.parametrize(
    ("write", "read"),
    [
        (write_json, read_json),
        (lambda file, value: save_file(value, file), read_weights),
        (lambda file, value: torch.save(value, file), check_saved),
    ],
    ids=["json", "safetensors", "torch"],
)
def test_a_damaged_file_is_named(tmp_path, write, read, left):
    file = tmp_path / "name"
    write(file, {"weights": [1.0] * 99} if write is write_json else {"weights": torch.ones(99)})
    read(file, tmp_path)
    whole = file.read_bytes()
    file.write_bytes({"half": whole[: len(whole) // 2], "zeros": bytes(len(whole)), "nothing": b""}[left])
    for folder, what in ((None, "it"), (tmp_path, str(tmp_path))):
        with pytest.raises(UserError) as caught:
            read(file, folder)
        assert str(caught.value).startswith(f"{file} is damaged; delete {what} and go on with --resume")
