"""The run folder: made once, taken up again only with the same settings, teacher and rows."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import platform
import shutil
import stat
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import yaml

from minidisc import ranks
from minidisc.config import CompressSettings, FinetuneSettings
from minidisc.errors import UserError
from minidisc.files import new_file
from minidisc.values import changes, fingerprint

TEXT = "text"
"""Folder in the run's of what its teacher wrote, which is there before the run is."""
_LOCK = ".lock"
# What may be there before a run is; the last two where making it was cut short.
_BEFORE = (TEXT, _LOCK, ".run.yaml.tmp", f".{TEXT}.tmp")
_TRAINING = ".training"
_LATE = 60  # seconds until what another machine has written is shown at the latest
FREE = ("output_dir", "keep_sizes", "keep_checkpoints", "examples", "report_to")
"""Settings that do not change what is computed: where results go, and what is kept."""


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder while the block runs in this one, or in rank 0; it is made, if need be.

    The system itself gives the lock up when the process ends: one that is killed leaves nothing that is in the way.

    Raises:
        UserError: another process is at work there.
    """
    if ranks.rank() > 0:
        yield
        return
    made = [part for part in (folder, *folder.parents) if not part.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / _LOCK) as file:
        file.truncate(0)
        file.write(f"{os.getpid()}")
        file.flush()
        try:
            yield
        finally:
            (folder / _LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # something is in it
                for part in made:
                    part.rmdir()


def open_run(
    settings: CompressSettings | FinetuneSettings,
    fingerprints: dict[str, str],
    resume: bool,
    free: Sequence[str] = (),
    folder: Path | None = None,
) -> Path:
    """Make the run folder and its ``run.yaml``, or check that it is the same run's.

    Args:
        settings: resolved settings.
        fingerprints: hashes of what the settings only name: a model's weights, its tokenizer and the rows.
        resume: whether an existing folder may be gone on with.
        free: settings that may have changed since.
        folder: the run's; the settings' ``output_dir`` if not given.

    Raises:
        UserError: the folder holds something else, another run, or a run that was not to be resumed; in ranks other
            than 0, it holds no run.
    """
    folder = folder or Path(settings.output_dir)
    file = folder / "run.yaml"
    record = {
        "settings": _plain(dataclasses.asdict(settings)),
        "fingerprints": fingerprints,
        "versions": versions(),
    }
    if ranks.rank() > 0 and not _is_shown(file):
        raise _not_shared(folder)
    check_folder(folder)
    if file.is_file():
        if not resume:
            raise UserError(
                f"--output-dir {folder} already holds a run; add --resume to go on with it, or give another."
            )
        old = _read(file)
        old["settings"] = with_defaults(type(settings), old.get("settings") or {})
        _require_same(old, record, folder, (*FREE, *free))
        # These are of what has been trained so far; see `trained_with`.
        record |= {name: old[name] for name in ("versions", "warnings") if name in old}
        if not free or ranks.rank() > 0:
            return folder
    folder.mkdir(parents=True, exist_ok=True)
    _write(file, record)
    return folder


def with_defaults(cls: type, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a class as a file has them, older ones too: an option that was not there yet had its default."""
    return _plain({field.name: field.default for field in dataclasses.fields(cls)}) | settings


def trained_with(folder: Path, more: bool) -> tuple[dict[str, str], list[str]]:
    """Versions that a run was last trained with, and a warning for each time that it went on with others.

    Args:
        folder: the run's.
        more: whether it is trained further now, with the versions of now.
    """
    record = _read(folder / "run.yaml")
    before, now = record.get("versions") or {}, versions()
    changed = [name for name in now if before.get(name, now[name]) != now[name]]
    if more and changed:
        then, here = (", ".join(f"{name} {those[name]}" for name in changed) for those in (before, now))
        line = f"begun with {then}, goes on with {here}; weights may differ from an uninterrupted run's."
        record = {**record, "versions": now, "warnings": [*record.get("warnings", ()), line]}
        _write(folder / "run.yaml", record)
    return record.get("versions") or now, record.get("warnings") or []


def run_key(settings: CompressSettings | FinetuneSettings, fingerprints: dict[str, str]) -> str:
    """A hash of what makes a run, as `open_run` takes it; an option that is left at its default does not change it."""
    given = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.name not in FREE and getattr(settings, field.name) != field.default
    }
    return fingerprint([given, fingerprints])


def check_shared(folder: Path) -> None:
    """Refuse a run folder that is not the same one for all processes, as on machines with disks of their own.

    Raises:
        UserError: a process does not find there what rank 0 has just written.
    """
    if ranks.world_size() == 1:
        return
    file = folder / ".shared"
    token = ranks.by_zero(lambda: _new_token(file))
    try:
        with ranks.zero_first():
            if not _is_shown(file, token):
                raise _not_shared(folder)
    finally:
        if ranks.rank() == 0:
            file.unlink(missing_ok=True)


def check_new(folder: Path) -> None:
    """Refuse an output folder that a new one cannot take the place of.

    Raises:
        UserError: it is a file, holds something, cannot be written, or cannot be replaced, being the one that this
            runs in or where a disk is mounted.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--output-dir {folder} exists and is not empty; give a folder that does not exist yet.")
    if _followed(folder) == Path.cwd():
        raise UserError(f"--output-dir {folder} is the folder that this runs in; give one that does not exist yet.")
    if folder.is_mount():
        raise UserError(f"--output-dir {folder} is where a disk is mounted; give a folder in it.")
    _check_writable(folder)


def check_folder(folder: Path) -> None:
    """Refuse an output folder that is something else than a run's.

    Raises:
        UserError: it is a file, holds something and no run, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output-dir {folder} is a file; give a folder.")
    holds_run = (folder / "run.yaml").is_file()
    if not holds_run and folder.exists() and any(entry.name not in _BEFORE for entry in folder.iterdir()):
        raise UserError(f"--output-dir {folder} is not empty and holds no run; give another folder.")
    _check_writable(folder)


def _check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written, before anything is computed for it."""
    whole = _followed(folder)
    there = next(path for path in (whole, *whole.parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"--output-dir {folder} cannot be made: {there} is a file; give another folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--output-dir {folder} cannot be written: {there} allows no writing; give another folder.")
    try:
        str(whole).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"--output-dir {str(folder)!a} is not UTF-8, which files of weights need; give another name."
        ) from None


def remove_run(folder: Path) -> None:
    """Remove a run that trained nothing; what its teacher wrote may have taken hours, and stays for the next."""
    for entry in folder.iterdir():
        if entry.name in (TEXT, _LOCK):
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    if not any(folder.iterdir()) and folder.resolve() != Path.cwd():
        folder.rmdir()


def settled(settings: Any, folder: Path | None) -> Any:
    """Settings in which the precision is what it was when the run in ``folder`` began, or else is faster here.

    Args:
        settings: a dataclass with ``precision`` and ``device``.
        folder: the run's, if it has one.

    Raises:
        UserError: bf16 where transformers takes the run for one on GPUs that are not there.
    """
    # Not above: that imports torch, for which the commands' help would have to wait.
    from minidisc.devices import resolve_device, resolve_precision

    device = resolve_device(settings.device)
    only_whole = ranks.is_deepspeed_on_cpus(device.type)
    if settings.precision == "bf16" and only_whole:
        raise UserError("DeepSpeed on CPUs takes no --precision bf16 here; give --precision fp32, or leave it out.")
    if settings.precision != "auto":
        return settings
    file = folder / "run.yaml" if folder else None
    before = _read(file).get("settings") if file and file.is_file() else None
    precision = (before or {}).get("precision") or ("fp32" if only_whole else resolve_precision("auto", device))
    return dataclasses.replace(settings, precision=precision)


def _followed(folder: Path) -> Path:
    """The folder that is meant, which may be given by a link."""
    try:
        return folder.resolve()
    except RuntimeError:
        raise UserError(f"--output-dir {folder} is a link that leads back to itself; give another folder.") from None


def versions() -> dict[str, str]:
    """Versions of the packages that figures depend on."""
    names = ("minidisc", "torch", "transformers", "tokenizers", "accelerate", "numpy")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def training_folder(folder: Path) -> Path:
    """Where `minidisc finetune` trains the model that is then put into ``folder``."""
    itself = _followed(folder)
    return itself.with_name(f".{itself.name}{_TRAINING}")


def _made_in(folder: Path) -> Path:
    """The ``output_dir`` of the run whose ``run.yaml`` is in ``folder``."""
    itself = folder.resolve()
    if itself.name.startswith(".") and itself.name.endswith(_TRAINING):
        return itself.with_name(itself.name[1:].removesuffix(_TRAINING))
    return folder


def read_config(path: Path) -> dict[str, Any]:
    """Settings from a YAML file: either a plain mapping, or a run folder's ``run.yaml``.

    Those of a run's own file have the run's folder as their ``output_dir``, wherever it has been moved or copied to.

    Raises:
        UserError: missing, or not a mapping.
    """
    if not path.is_file():
        raise UserError(f"--config {path} does not exist; give a YAML file of settings.")
    content = _read(path)
    settings = content.get("settings", content)
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise _no_settings(path)
    if path.name == "run.yaml" and "fingerprints" in content:
        return {**settings, "output_dir": str(_made_in(path.parent))}
    return dict(settings)


def read_fingerprints(folder: Path) -> dict[str, str]:
    """What a run's folder says of the teacher's weights, its tokenizer and the rows, which its settings only name."""
    return dict(_read(folder / "run.yaml").get("fingerprints") or {})


def _locked(path: Path) -> TextIO:
    """The open file ``path``, which no other process can lock before it is closed."""
    while True:
        file = _opened(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                raise UserError(
                    f"{path.parent} is in use by another process (pid {file.read() or 'unknown'}); wait until it has "
                    "ended, or give another --output-dir."
                ) from None
        except OSError:
            return file  # a file system without locks
        # Whoever had the lock before may have removed the file since it was opened here.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def _opened(path: Path) -> TextIO:
    """The file ``path``, made if need be; what is written to it must not end behind a link, in another one."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR):
            raise
        raise _no_lock(path) from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _no_lock(path)
    return os.fdopen(handle, "r+", encoding="utf-8")


def _no_lock(path: Path) -> UserError:
    return UserError(f"{path} is no file of minidisc's but a link, a folder or a device; look at it, and remove it.")


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError):
        # The parser's own errors, and what it lets through: of dates, numbers and tags that are none, of brackets in
        # brackets.
        content = None
    if not isinstance(content, dict):
        raise _no_settings(path)
    return content


def _write(path: Path, record: dict[str, Any]) -> None:
    with new_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(record, sort_keys=False), encoding="utf-8")


def _no_settings(path: Path) -> UserError:
    return UserError(f"{path} is not a YAML mapping of settings; write lines such as 'target-sparsity: 0.9'.")


def _new_token(file: Path) -> str:
    token = uuid.uuid4().hex
    file.write_text(token)
    return token


def _is_shown(file: Path, text: str | None = None) -> bool:
    """Whether a file is there, with this text if one is given; file systems of a network may show it late."""
    end = time.monotonic() + _LATE
    while True:
        with suppress(OSError):
            os.listdir(file.parent)  # else what was last known of the folder might be taken for true
            if file.is_file() and text in (None, file.read_text()):
                return True
        if time.monotonic() >= end:
            return False
        time.sleep(1)


def _not_shared(folder: Path) -> UserError:
    return UserError(
        f"--output-dir {folder} is not the folder of rank 0; all processes need one that they share, also those of "
        "other machines."
    )


def _require_same(old: dict[str, Any], new: dict[str, Any], folder: Path, free: Sequence[str]) -> None:
    parts = ("settings", "fingerprints")
    differences = [line for part in parts for line in changes(old.get(part) or {}, new[part], free)]
    if differences:
        raise UserError(
            f"{folder} holds a run with other settings ({'; '.join(differences)}); "
            "repeat its settings (--config RUN/run.yaml) or give another --output-dir."
        )
