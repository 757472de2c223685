"""Files that are whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from minidisc.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says where nothing more can be written."""
# What it says where a folder cannot take a place that is not an empty folder's.
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_NO_ROOM = 2**20  # bytes that may be left beside what could not be written
_DAMAGED = (json.JSONDecodeError, UnicodeDecodeError, SafetensorError, EOFError)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; what is written there replaces ``path`` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with full_disk_named(path.parent):
            mode = _mode_of_new(temporary)
            yield temporary
            _finish(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: Path, replaces: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path`` that takes the place of ``path`` when the block ends well.

    Args:
        path: if it is a link, the folder to which it leads is meant, unless it gives way.
        replaces: whether a folder that is there and not empty gives way, and of a link that alone: what it leads to
            may be anything.

    Raises:
        UserError: it does not give way, and what was made is left under its temporary name.
    """
    path = path.parent.resolve() / path.name if replaces else path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with full_disk_named(path.parent):
            yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    mode = _mode_of_new(temporary / ".mode")
    for file in temporary.rglob("*"):
        if file.is_file():
            _finish(file, mode)
    if replaces and path.is_symlink():
        path.unlink()
    elif replaces:
        shutil.rmtree(path, ignore_errors=True)
    try:
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        raise UserError(
            f"{path} was made or filled while this was at work, and is left alone; what was to be there is in "
            f"{temporary}; move either of them."
        ) from None


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Turn what libraries raise when the disk of ``folder`` is full into the system's own error, with the folder.

    safetensors only quotes the system, torch says where in the file it stopped, and Python itself names no path.
    """
    try:
        yield
    except Exception as error:
        code = _full_disk(error, folder)
        if code is None or (isinstance(error, OSError) and error.filename is not None):
            raise
        raise OSError(code, os.strerror(code), str(folder)) from error


def _full_disk(error: Exception, folder: Path) -> int | None:
    """The system's number for a full disk, or a used up share of it, if that is what an error comes from."""
    for code in FULL:
        if getattr(error, "errno", None) == code or os.strerror(code) in str(error):
            return code
    stopped = isinstance(error, RuntimeError) and "inline_container" in str(error)
    return errno.ENOSPC if stopped and shutil.disk_usage(folder).free < _NO_ROOM else None


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with new_file(path) as temporary:
        # File names on Linux need not be valid Unicode; escaped as JSON escapes, they are read as they were.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json(path: Path, folder: Path | None = None) -> Any:
    """Read a JSON file; see `damage_named`."""
    with damage_named(path, folder):
        return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def damage_named(file: Path, folder: Path | None = None) -> Iterator[None]:
    """Turn what libraries raise when a file of a run is cut short, as by a power cut, into one line that names it.

    Args:
        file: what is read in the block.
        folder: what has to be deleted for it to be made anew, if not the file alone.

    Raises:
        UserError: the file is damaged.
    """
    try:
        yield
    except _DAMAGED:
        raise UserError(
            f"{file} is damaged; delete {folder or 'it'} and go on with --resume, which makes it anew."
        ) from None


def check_saved(file: Path, folder: Path) -> None:
    """Refuse what torch has saved if it is cut short, for which torch itself has ever other errors.

    Raises:
        UserError: see `damage_named`.
    """
    with damage_named(file, folder):
        if not zipfile.is_zipfile(file):
            raise EOFError


def _mode_of_new(path: Path) -> int:
    """The permissions that a file has which is made at ``path``, where none is left."""
    path.unlink(missing_ok=True)
    path.touch()
    mode = path.stat().st_mode & 0o777
    path.unlink()
    return mode


def _finish(path: Path, mode: int) -> None:
    """Give a file its permissions, which safetensors keeps from all but the user, and have it on the disk."""
    path.chmod(mode)
    with path.open("rb") as file:
        os.fsync(file.fileno())
